"""The loss of plain next-token prediction on held-out text: what visual training may cost the language model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import nn

from theodolite.objectives.language import next_token_loss
from theodolite.records.errors import BadInput
from theodolite.records.part import Estimate
from theodolite.records.progress import Progress, silent
from theodolite.records.text_loss import TextLoss, TextLossChange
from theodolite.stats.rates import clustered_mean

WINDOW = 256
CONFIDENCE = 0.95


def text_windows(tokens: Sequence[int], window: int = WINDOW) -> list[Int[np.ndarray, " token"]]:
    """Token ids cut into windows, one after the other; the first token of each is read and not predicted.

    Raises `BadInput` for a text of fewer than two windows, which would have no interval.
    """
    ids = np.asarray(tokens, dtype=np.int64)
    parts = [ids[at : at + window] for at in range(0, len(ids), window)]
    parts = [part for part in parts if len(part) > 1]
    if len(parts) < 2:
        raise BadInput(f"the text has {len(ids)} tokens; give more than {window + 1}, so that there are windows to compare")
    return parts


def measure_text_loss(
    model: nn.Module, tokenizer: Any, text: str, *, name: str, source: str, window: int = WINDOW, progress: Progress = silent
) -> TextLoss:
    """Nats a token of plain text, mean over all predicted tokens, with an interval clustered by window.

    `model` is a language model or a VLM, which is given no picture. Raises `BadInput` for a text that is too short.
    """
    parts = text_windows(tokenizer(text, add_special_tokens=False)["input_ids"], window)
    device = next(model.parameters()).device
    losses: list[float] = []
    model.eval()
    with torch.no_grad():
        for part in parts:
            ids = torch.from_numpy(part).to(device)
            logits = model(input_ids=ids[None]).logits[0]
            losses.append(float(next_token_loss(logits[:-1], ids[1:])))
            progress(len(losses), len(parts))
    nats, counts = np.array(losses), np.array([len(part) - 1 for part in parts])
    return TextLoss(
        model=name,
        text=source,
        text_sha256=hashlib.sha256(text.encode()).hexdigest(),
        tokenizer_sha256=hashlib.sha256(np.concatenate(parts).astype("<i8").data).hexdigest(),
        num_tokens=int(counts.sum()),
        num_windows=len(parts),
        nats_per_token=_ratio(nats, counts, float(nats.sum() / counts.sum())),
        window_nats=tuple(losses),
        window_tokens=tuple(int(count) for count in counts),
    )


def text_loss_change(before: TextLoss, after: TextLoss) -> TextLossChange:
    """The relative change of the loss a token, paired by window. Raises `BadInput` where the two read different tokens."""
    if before.tokenizer_sha256 != after.tokenizer_sha256:
        raise BadInput(
            f"{before.model} and {after.model} read different tokens (another text or tokenizer), so their losses cannot be compared"
        )
    one, other = np.array(before.window_nats), np.array(after.window_nats)
    relative = float(other.sum() / one.sum()) - 1
    return TextLossChange(before=before, after=after, relative=_ratio(other - one, one, relative))


def _ratio(top: Shaped[np.ndarray, " window"], bottom: Shaped[np.ndarray, " window"], ratio: float) -> Estimate:
    """A ratio of sums over windows, with the interval of its linearisation (Cochran, Sampling Techniques, 6.3)."""
    residual = (top - ratio * bottom) / bottom.mean()
    around = clustered_mean(residual, np.arange(len(residual)), CONFIDENCE)
    low = None if around.low is None else ratio + around.low
    high = None if around.high is None else ratio + around.high
    return Estimate(value=ratio, low=low, high=high, num_scenes=len(residual))
