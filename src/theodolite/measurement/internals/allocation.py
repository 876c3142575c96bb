"""Allocation of attention from text tokens to vision tokens, beside the share of vision tokens among the visible tokens.

A share is where attention goes, not its effect: the causal measures shuffle or average the vision tokens and count changed answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.asking.local import LocalAsker
from theodolite.asking.rows import Batch, TokenRow
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.reask import ReaskedCases, cases_of, first_pictures, open_rows
from theodolite.models.exported.attention import visible
from theodolite.models.taps import layer_sites, watching_attention
from theodolite.records.allocation import Allocation, LayerAllocation
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import clustered_mean, paired_difference

NUM_SCENES = 100
NUM_QUESTIONS = 4


def measure_allocation(context: MeasureContext) -> Allocation | None:
    """Shares, 0 to 1, over the first picture of each of the first scenes with its first open questions; None without open questions."""
    rows = first_pictures(open_rows(context.rows), NUM_SCENES)
    rows = rows.group_by("scene", maintain_order=True).head(NUM_QUESTIONS)
    if rows.is_empty():
        return None
    cases = cases_of(rows, "before", apart=False)
    scene_of = dict(zip(rows["picture_before"].to_list(), rows["scene"].to_list(), strict=True))
    scenes = np.array([scene_of[picture] for picture in cases.before.tolist()])
    shares, baselines = _shares(context, cases)
    bounds, confidence = (0.0, 1.0), context.confidence
    layers = {}
    for number, site in enumerate(layer_sites(context.model)):
        share, baseline = shares[number].mean(axis=1).round(DIGITS).clip(*bounds), baselines[number].round(DIGITS)
        layers[site] = LayerAllocation(
            share=rounded(clustered_mean(share, scenes, confidence, bounds)),
            baseline=rounded(clustered_mean(baseline, scenes, confidence, bounds)),
            excess=rounded(paired_difference(baseline, share, scenes, confidence, (-1.0, 1.0))),
            heads=tuple(round(float(each), DIGITS) for each in shares[number].mean(axis=0)),
        )
    most = rows.group_by("scene").len().select(pl.col("len").max()).item()
    return Allocation(num_scenes=len(np.unique(scenes)), num_questions=most, layers=layers)


@dataclass(frozen=True, eq=False)
class AttentionShares:
    """Shares and baselines of a batch's rows, summed over their text tokens, by layer from 0; `tokens` is the number of those."""

    num_asks: int
    picture: Int[np.ndarray, " row"]
    tokens: Int[np.ndarray, " row"]
    shares: Mapping[int, Float[np.ndarray, "row head"]]
    baselines: Mapping[int, Float[np.ndarray, " row"]]


def _batch_shares(asker: LocalAsker, batch: Batch, pictures: np.ndarray) -> AttentionShares:
    """One pass over a batch; each layer's attention map is reduced when it is computed."""
    visible_share, shares, baselines = SeenShare(asker, batch), dict[int, np.ndarray](), dict[int, np.ndarray]()

    def reduce(number: int, attention: Float[Tensor, "row head query key"]) -> None:
        shares[number] = vision_share(attention, batch.vision, batch.text).double().cpu().numpy()
        baselines[number] = visible_share.share(number).cpu().numpy()

    with torch.no_grad(), watching_attention(asker.base, reduce):  # not inference mode: a model may go on training afterwards
        asker.score(batch, asker.encode_batch(batch, pictures))
    return AttentionShares(len(batch.questions), batch.pictures.cpu().numpy(), batch.text.sum(dim=1).cpu().numpy(), shares, baselines)


def _shares(context: MeasureContext, cases: ReaskedCases) -> tuple[Float[np.ndarray, "layer case head"], Float[np.ndarray, "layer case"]]:
    """Mean share and mean baseline over each picture's text tokens, by layer; rows of one picture are weighted by their tokens."""
    asker, pictures = context.asker, context.plan.pictures[cases.before]
    num_layers, heads = len(layer_sites(asker.base)), asker.base.config.get_text_config().num_attention_heads
    shares, baselines = np.zeros((num_layers, len(pictures), heads)), np.zeros((num_layers, len(pictures)))
    tokens, done = np.zeros(len(pictures)), 0

    def run(rows: Sequence[TokenRow]) -> AttentionShares:
        return _batch_shares(asker, asker.collate(rows, pictures), pictures)

    for rows in asker.groups(pictures, cases.questions):
        for sums in asker.fitting(rows, run):
            np.add.at(tokens, sums.picture, sums.tokens)
            for number in range(num_layers):
                np.add.at(shares[number], sums.picture, sums.shares[number])
                np.add.at(baselines[number], sums.picture, sums.baselines[number])
            done += sums.num_asks
            context.progress(done, len(cases.questions))
    return shares / tokens[:, None], baselines / tokens


def vision_share(
    attention: Float[Tensor, "row head query key"], vision: Bool[Tensor, "row key"], text: Bool[Tensor, "row query"]
) -> Float[Tensor, "row head"]:
    """Attention of text tokens to vision tokens, summed over the text tokens: 0 to their number."""
    to_vision = torch.einsum("rhqk,rk->rhq", attention.float(), vision.float())
    return (to_vision * text[:, None]).sum(dim=2)


class SeenShare:
    """Share of vision tokens among the tokens visible to a batch's text tokens, by layer; computed once for each attention window."""

    def __init__(self, asker: LocalAsker, batch: Batch) -> None:
        config = asker.base.config.get_text_config()
        self.window: int | None = getattr(config, "sliding_window", None)
        self.kinds: Any = getattr(config, "layer_types", None)
        self.mixed = asker.adaptation.attention == "mixed" or asker.family.attention == "blocks"
        self.prefix = asker.family.attention == "prefix" and not self.mixed
        self.batch, self._by_window = batch, dict[int | None, Tensor]()

    def share(self, number: int) -> Float[Tensor, " row"]:
        """The share summed over each row's text tokens; `number` is the layer's, from 0."""
        window = self.window if self.kinds is None or self.kinds[number] == "sliding_attention" else None
        if window not in self._by_window:
            self._by_window[window] = seen_share(self._mask(window), self.batch.vision, self.batch.text)
        return self._by_window[window]

    def _mask(self, window: int | None) -> Bool[Tensor, "row query key"]:
        layout, suffix = self.batch.view.layout, self.batch.view.suffix
        mask = visible(layout, self.mixed, window)
        if self.prefix and suffix is not None:  # full attention among picture and question tokens, causal for answer tokens
            prefix = layout.real & ~suffix
            mask = mask | (prefix[:, :, None] & prefix[:, None, :])
        return mask


def seen_share(
    seen: Bool[Tensor, "row query key"], vision: Bool[Tensor, "row key"], text: Bool[Tensor, "row query"]
) -> Float[Tensor, " row"]:
    """Share of vision tokens among the tokens visible to each text token, 0 to 1, summed over the text tokens."""
    share = (seen & vision[:, None]).sum(dim=2).double() / seen.sum(dim=2)
    return (share * text).sum(dim=1)
