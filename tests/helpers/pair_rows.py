"""Answered rows of a manifest's pairs made by hand, with thumbnails: plausible, and measured on nothing."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
from PIL import Image

from theodolite.records.rows import ROWS

VALUES = {"colour": ("red", "yellow", "blue", "green"), "shape": ("round", "square", "triangular", "crossed")}
FORMS = ("open", "yes_no")


def answered_rows(num_scenes: int, seed: int = 0, *, named: bool = True, factor: str = "colour") -> pl.DataFrame:
    """Five rows a scene: two factors that change, each under two questions, and one of noise; every seventh scene is unanswered.

    `factor` is the name of the first factor.
    """
    rng = np.random.default_rng(seed)
    factors = (factor, "shape")
    rows = []
    for scene in range(num_scenes):
        for place, changed in enumerate(factors):
            values = VALUES[("colour", "shape")[place]]
            first, second = rng.choice(len(values), 2, replace=False)
            for asked in (0, 1):
                choices = list(VALUES[("colour", "shape")[asked]])
                truth = int(rng.integers(4))
                truths = (int(first), int(second)) if asked == place else (truth, truth)
                fixed = {"factor": changed, "value_before": values[first], "value_after": values[second], "query": factors[asked]}
                row = _row(rng, "intervention", scene, choices, truths, named=named, picture=place + 1, **fixed)
                rows.append(row | {"form": FORMS[(scene + asked) % 2] if asked else "open"})
        truth = int(rng.integers(4))
        fixed = {"factor": "", "value_before": None, "value_after": None, "query": "shape"}
        rows.append(_row(rng, "nuisance", scene, list(VALUES["shape"]), (truth, truth), named=named, picture=3, **fixed))
    return pl.DataFrame(rows, schema={name: column.dtype for name, column in ROWS.items()})


def _row(
    rng: np.random.Generator, kind: str, scene: int, choices: list[str], truths: tuple[int, int], *, named: bool, picture: int, **fixed: Any
) -> dict[str, Any]:
    sides = [rng.dirichlet(np.full(len(choices), 0.3)) for _ in "ab"]
    if scene % 7 == 6:
        sides = []
    answers = [choices[int(side.argmax())] for side in sides] or [None, None]
    names = (f"scene {scene}", f"{kind}-{fixed['query']}-{picture}-{scene}", f"own/{scene}-base.png", f"own/{scene}-{picture}.png")
    named_values = dict(zip(("scene_name", "row", "path_before", "path_after"), names if named else (None,) * 4, strict=True))
    right = None if not sides else answers == [choices[truth] for truth in truths]
    question = f"what is its {fixed['query']}?"
    return {
        **fixed, **named_values, "kind": kind, "scene": scene, "form": "open", "name": fixed["query"],
        "question_before": question, "question_after": question, "choices": choices,
        "truth_before": choices[truths[0]], "truth_after": choices[truths[1]],
        "picture_before": 4 * scene, "picture_after": 4 * scene + picture,
        "answer_before": answers[0], "answer_after": answers[1],
        "probabilities_before": list(sides[0]) if sides else None, "probabilities_after": list(sides[1]) if sides else None,
        "moved": answers[0] != answers[1] if sides else None, "right": right,
        "variation": float(np.abs(sides[0] - sides[1]).sum() / 2) if sides else None,
    }  # fmt: skip


def webp(number: int, side: int = 48) -> bytes:
    """A picture whose colour is its number."""
    target = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, 90, 40)).save(target, "WEBP", lossless=True)
    return target.getvalue()
