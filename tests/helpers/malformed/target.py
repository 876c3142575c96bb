"""What a target of malformed input is, and where each of them is defined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hypothesis.strategies import SearchStrategy

from theodolite.records.errors import BadInput


@dataclass(frozen=True, eq=False)
class Ready:
    """A target in its folder: how its cases are made, what reads one, and the errors that the package turns into one sentence."""

    cases: SearchStrategy[bytes]
    consume: Callable[[bytes], object]
    allowed: tuple[type[BaseException], ...] = (BadInput,)


Prepare = Callable[[Path], Ready]
"""Makes a target ready in a folder."""

SHARES: Mapping[str, Mapping[str, float]] = {
    "tables": {"manifest JSONL": 0.16, "manifest Parquet": 0.06, "annotated Parquet": 0.04, "policy": 0.11},
    "conversations": {"LLaVA JSON": 0.1, "chat template": 0.05},
    "records": {"survey.json": 0.1, "study.json": 0.05, "rows.parquet": 0.04, "recipe.json": 0.04, "training records": 0.03},
    "logs": {"sample logs": 0.07, "chat answers": 0.02},
    "pictures": {"pictures": 0.09},
    "weights": {"GGUF": 0.01, "safetensors": 0.02, "model folder": 0.01},
}
"""Shares of all cases by target, by the module of `helpers.malformed` that defines them."""
MODULES: Mapping[str, str] = {name: f"helpers.malformed.{module}" for module, shares in SHARES.items() for name in shares}


def cases_by_target(number: int) -> dict[str, int]:
    """A number of cases divided among the targets."""
    return {name: max(1, round(share * number)) for shares in SHARES.values() for name, share in shares.items()}
