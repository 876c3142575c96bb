"""The families of models that theodolite handles: names of parts, not behaviour. A new family is one entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as module paths from the loaded model."""

    name: str
    encoder: str
    connector: str
    language_model: str
    lm_head: str
    # Whether the tokens up to the picture's end are blind to what follows, so that one run of them serves every question.
    shares_prefix: bool


FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(
            name="llava",
            encoder="model.vision_tower",
            connector="model.multi_modal_projector",
            language_model="model.language_model",
            lm_head="lm_head",
            shares_prefix=True,
        ),
    )
}


class UnknownFamily(BadInput):
    """A model of a family that has no entry here; the message lists those that have."""


def family_of(config: Any) -> Family:
    """The family of a model by `config.model_type`. Raises `UnknownFamily`."""
    if config.model_type not in FAMILIES:
        known = ", ".join(sorted(FAMILIES))
        raise UnknownFamily(f"models of type {config.model_type!r} are not in the families table; it holds {known}")
    return FAMILIES[config.model_type]
