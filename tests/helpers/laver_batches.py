"""Hand-made batches for tests of masks, positions and objectives: rows of text and pictures, padded or packed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from theodolite.models.exported.grids import token_grid
from theodolite.models.exported.layout import Layout, mark_pictures
from theodolite.objectives.masking import draw_ranks

# One sample as letters: v is a picture of 2 x 2 tokens, t a text token; "|" starts a branch.
Sample = str
SIDE = 2


def layout(rows: Sequence[Sequence[Sample]], side: int = SIDE) -> Layout:
    """The layout of rows of samples, padded on the right: "tvt|tt|t" is text, a picture, text, and two branches; "t>t>t" has two twigs."""
    cells = side * side
    sample_rows, branch_rows, twig_rows, vision_rows = [], [], [], []
    number = 0
    for row in rows:
        samples: list[int] = []
        branches: list[int] = []
        twigs: list[int] = []
        vision: list[bool] = []
        for text in row:
            parts = [(branch, twig, part) for branch, run in enumerate(text.split("|")) for twig, part in enumerate(run.split(">"))]
            for branch, twig, part in parts:
                kinds = [kind == "v" for kind in part for _ in range(cells if kind == "v" else 1)]
                samples += [number] * len(kinds)
                branches += [branch] * len(kinds)
                twigs += [twig] * len(kinds)
                vision += kinds
            number += 1
        sample_rows.append(samples)
        branch_rows.append(branches)
        twig_rows.append(twigs)
        vision_rows.append(vision)
    width = max(map(len, sample_rows))
    sample = torch.tensor([row + [-1] * (width - len(row)) for row in sample_rows])
    branch = torch.tensor([row + [0] * (width - len(row)) for row in branch_rows])
    twig = torch.tensor([row + [0] * (width - len(row)) for row in twig_rows])
    seen = torch.tensor([row + [False] * (width - len(row)) for row in vision_rows])
    picture, cell = mark_pictures(seen, [token_grid(side, side)] * (int(seen.sum()) // cells))
    return Layout(sample, branch, picture, cell, twig if bool(twig.any()) else None)


def batch(
    rows: Sequence[Sequence[Sample]],
    *,
    image_token: int,
    vocabulary: int,
    pixels: dict[str, torch.Tensor],
    side: int = SIDE,
    seed: int = 0,
    low: int = 5,
) -> dict[str, Any]:
    """A batch as the collator gives it: random text, all text behind the first token of a segment predicted."""
    place = layout(rows, side)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(low, vocabulary, place.sample.shape, generator=generator)
    ids = torch.where(place.vision, image_token, torch.where(place.real, ids, 0))
    follows = torch.zeros_like(place.vision)
    same = (place.sample[:, 1:] == place.sample[:, :-1]) & (place.branch[:, 1:] == place.branch[:, :-1])
    follows[:, :-1] = same & ~place.vision[:, 1:] & place.real[:, 1:]
    predicts = follows.flatten().nonzero()[:, 0]
    rank, dither = torch.full_like(ids, -1), torch.zeros(ids.shape, dtype=torch.float64)
    for number in range(len(place.sizes())):
        ranks, start = draw_ranks(side * side, seed, "sample", 0, number)
        rank[place.picture == number] = torch.as_tensor(ranks)
        dither[place.picture == number] = start
    return {
        "input_ids": ids,
        "sample": place.sample,
        "branch": place.branch,
        "picture": place.picture,
        "cell": place.cell,
        "rank": rank,
        "dither": dither,
        "predicts": predicts,
        "labels": ids.flatten()[predicts + 1],
        **pixels,
    }
