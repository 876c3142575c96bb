"""The families of models that theodolite handles: names of parts, not behaviour. A new family is one entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from theodolite.records.errors import BadInput

# An adapted model is exported as a model type of its own: this, then the family's name.
EXPORTED = "theodolite_"


@dataclass(frozen=True)
class Family:
    """Where a family keeps its parts, as module paths from the loaded model, and what its stock forward takes and does.

    `encoder` may hold the connector within it (Qwen-VL): whoever freezes the one and trains the other freezes first.
    """

    name: str
    encoder: str
    # Modules, or lists of modules, between encoder and language model; `connector_parameters` are those that lie in no such module.
    connector: tuple[str, ...]
    language_model: str
    # Whether the tokens up to the picture's end are blind to what follows, so that one run of them serves every question.
    shares_prefix: bool
    lm_head: str = "lm_head"
    connector_parameters: tuple[str, ...] = ()
    # What the stock forward does among a picture's tokens: one position a token or three; causal, all of one picture, or all of the prefix.
    positions: Literal["1d", "mrope"] = "1d"
    attention: Literal["causal", "blocks", "prefix"] = "causal"
    # Keyword arguments of the forward that carry pictures.
    pixel_inputs: tuple[str, ...] = ("pixel_values",)
    # The keyword argument that tells kinds of tokens apart, if the forward takes one, and the tokens that are 1 in it.
    token_types: str | None = None
    typed_tokens: Literal["none", "picture", "answer"] = "none"


LLAVA_PARTS: Mapping[str, Any] = {
    "encoder": "model.vision_tower",
    "connector": ("model.multi_modal_projector",),
    "language_model": "model.language_model",
    "shares_prefix": True,
}
IDEFICS_PARTS: Mapping[str, Any] = {
    "encoder": "model.vision_model",
    "connector": ("model.connector",),
    "language_model": "model.text_model",
    "shares_prefix": True,
    "pixel_inputs": ("pixel_values", "pixel_attention_mask"),
}
QWEN_PARTS: Mapping[str, Any] = {
    "encoder": "model.visual",
    "connector": ("model.visual.merger",),
    "language_model": "model.language_model",
    "shares_prefix": True,
    "positions": "mrope",
    "pixel_inputs": ("pixel_values", "image_grid_thw"),
    "token_types": "mm_token_type_ids",
    "typed_tokens": "picture",
}

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        Family(name="llava", **LLAVA_PARTS),
        Family(
            name="llava_onevision",
            **LLAVA_PARTS,
            connector_parameters=("model.image_newline",),
            pixel_inputs=("pixel_values", "image_sizes", "batch_num_images"),
        ),
        Family(name="qwen2_vl", **QWEN_PARTS),
        Family(name="qwen2_5_vl", **QWEN_PARTS),
        Family(name="qwen3_vl", **{**QWEN_PARTS, "connector": ("model.visual.merger", "model.visual.deepstack_merger_list")}),
        Family(name="smolvlm", **IDEFICS_PARTS),
        Family(name="idefics3", **IDEFICS_PARTS),
        Family(
            name="paligemma",
            **{**LLAVA_PARTS, "shares_prefix": False},
            attention="prefix",
            token_types="token_type_ids",
            typed_tokens="answer",
        ),
        Family(name="gemma3", **LLAVA_PARTS, attention="blocks", token_types="token_type_ids", typed_tokens="picture"),
        Family(name="internvl", **LLAVA_PARTS),
    )
}

NO_TOKENS = "feeds pictures through cross-attention, so they have no tokens in the sequence"
NO_PLACES = "pools each picture into learned queries, so its tokens have no place in the picture"
TWO_STACKS = "is an encoder-decoder, so pictures and answers do not stand in one sequence"
REFUSED: Mapping[str, str] = {
    "mllama": NO_TOKENS,
    "idefics": NO_TOKENS,
    "idefics2": NO_PLACES,
    "blip-2": NO_PLACES,
    "instructblip": NO_PLACES,
    "instructblipvideo": NO_PLACES,
    "kosmos-2": NO_PLACES,
    "aria": NO_PLACES,
    "florence2": TWO_STACKS,
    "pix2struct": TWO_STACKS,
    "vision-encoder-decoder": TWO_STACKS,
}


class UnknownFamily(BadInput):
    """A model of a family that has no entry here, or that cannot have one; the message says why, or lists those that have."""


def family_of(config: Any) -> Family:
    """The family of a model by `config.model_type`; that of the stock model for an exported one. Raises `UnknownFamily`."""
    found = config.model_type
    name = str(found).removeprefix(EXPORTED)
    if name in REFUSED:
        raise UnknownFamily(f"models of type {found!r} cannot be handled: the family {REFUSED[name]}; take one of {_known()}")
    if name not in FAMILIES:
        raise UnknownFamily(f"models of type {found!r} are not in the families table; it holds {_known()}")
    return FAMILIES[name]


def image_token_id(config: Any) -> int:
    """The token that stands for each of a picture's tokens in `input_ids`. Raises `UnknownFamily`."""
    family_of(config)
    return int(config.image_token_id)


def _known() -> str:
    return ", ".join(sorted(FAMILIES))
