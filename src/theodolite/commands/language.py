"""Language models' next-token loss on plain text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.table import Table
from torch import nn
from transformers import PreTrainedConfig

from theodolite.commands.progress import Steps
from theodolite.measurement.behaviour.text_loss import measure_text_loss, text_loss_change
from theodolite.models.construction.join import language_model_named
from theodolite.models.families import EXPORTED, FAMILIES
from theodolite.models.load import load_vlm, loading, model_folder
from theodolite.records.part import Estimate
from theodolite.records.reading import read_text
from theodolite.records.text_loss import TextLosses

DESCRIPTIONS = "scikit-learn's descriptions of its data sets"


def language_losses(models: Sequence[str], texts: Sequence[Path], steps: Steps) -> TextLosses:
    """The first model's loss, and the change of each other model relative to it. Raises `BadInput`."""
    text, source = _text(texts)
    losses = []
    for name in models:
        model, tokenizer = _language_model(name)
        with steps.step(f"text, {name}") as progress:
            losses.append(measure_text_loss(model, tokenizer, text, name=name, source=source, progress=progress))
    return TextLosses(first=losses[0], changes=tuple(text_loss_change(losses[0], other) for other in losses[1:]))


def language_table(losses: TextLosses) -> Table:
    """One line per model: nats a token with interval, and the change relative to the first in per cent."""
    first = losses.first
    table = Table(title=f"next-token loss on {first.text}: {first.num_tokens:,} tokens in {first.num_windows} windows")
    for column in ("model", "nats a token", "change, per cent"):
        table.add_column(column)
    table.add_row(first.model, _estimate_text(first.nats_per_token, 1, 4), "")
    for change in losses.changes:
        table.add_row(change.after.model, _estimate_text(change.after.nats_per_token, 1, 4), _estimate_text(change.relative, 100, 2))
    return table


def _estimate_text(estimate: Estimate, scale: float, digits: int) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{scale * estimate.value:.{digits}f}"
    low, high = scale * estimate.low, scale * estimate.high
    return f"{scale * estimate.value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _text(paths: Sequence[Path]) -> tuple[str, str]:
    """The text and its source: the given files, else prose from the installed scikit-learn."""
    if not paths:
        folder = files("sklearn.datasets").joinpath("descr")
        parts = sorted((item for item in folder.iterdir() if item.name.endswith(".rst")), key=lambda item: item.name)
        return "\n".join(part.read_text(encoding="utf-8") for part in parts), DESCRIPTIONS
    return "\n".join(read_text(path) for path in paths), ", ".join(path.name for path in paths)


def _language_model(name: str) -> tuple[nn.Module, Any]:
    """A VLM or a language model in float32, and its tokenizer. Raises `BadInput`."""
    folder = str(model_folder(name))
    if name != "smollm2" and not name.endswith(".gguf"):
        with loading("model", folder):
            kind = str(PreTrainedConfig.get_config_dict(folder)[0].get("model_type"))
        if kind.removeprefix(EXPORTED) in FAMILIES:
            model, processor = load_vlm(folder)
            return model, processor.tokenizer
    return language_model_named(folder, "sdpa")
