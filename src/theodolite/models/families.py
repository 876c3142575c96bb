"""Table of the supported model families: module paths and properties of their forwards, no behaviour. A new family is one entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from theodolite.records.errors import BadInput

# The model type of an exported adapted model is this prefix and the family's name.
EXPORTED = "theodolite_"


@dataclass(frozen=True)
class Family:
    """Module paths of a family's parts, from the loaded model, and the properties of its stock forward.

    `encoder` may contain the connector (Qwen-VL): to train the connector alone, freeze the encoder first.
    """

    name: str
    encoder: str
    # Modules, or lists of modules, between encoder and language model; `connector_parameters` are parameters outside these modules.
    connector: tuple[str, ...]
    language_model: str
    # Whether tokens up to the picture's end do not attend to later ones, so that one pass over them serves every question.
    shares_prefix: bool
    lm_head: str = "lm_head"
    # The norm between the last block and the head, within the language model; whether the stock forward caps the logits behind the head
    # (`final_logit_softcapping` of the text configuration, which other families with that field leave unused).
    final_norm: str = "norm"
    caps_logits: bool = False
    # The encoder's list of blocks, where the encoder contains the connector.
    encoder_blocks: str | None = None
    connector_parameters: tuple[str, ...] = ()
    # The stock forward on a picture's tokens: one position a token or three; attention causal, within the picture, or in the whole prefix.
    positions: Literal["1d", "mrope"] = "1d"
    attention: Literal["causal", "blocks", "prefix"] = "causal"
    # Keyword arguments of the forward that carry pictures.
    pixel_inputs: tuple[str, ...] = ("pixel_values",)
    # What the encoder derives from the pictures' grids and takes as keyword arguments with the prefix image_ (`models.encoder_inputs`).
    plans: tuple[str, ...] = ()
    # The keyword argument of token types, if the forward takes one, and the tokens whose type is 1.
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
SEGMENTS = ("position_ids", "cu_seqlens")
QWEN_PARTS: Mapping[str, Any] = {
    "encoder": "model.visual",
    "encoder_blocks": "model.visual.blocks",
    "connector": ("model.visual.merger",),
    "language_model": "model.language_model",
    "shares_prefix": True,
    "positions": "mrope",
    "pixel_inputs": ("pixel_values", "image_grid_thw"),
    "plans": SEGMENTS,
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
        Family(name="qwen2_5_vl", **{**QWEN_PARTS, "plans": (*SEGMENTS, "window_index", "cu_window_seqlens")}),
        Family(
            name="qwen3_vl",
            **{
                **QWEN_PARTS,
                "connector": ("model.visual.merger", "model.visual.deepstack_merger_list"),
                "plans": (*SEGMENTS, "interp_indices", "interp_weights"),
            },
        ),
        Family(name="smolvlm", **IDEFICS_PARTS),
        Family(name="idefics3", **IDEFICS_PARTS),
        Family(
            name="paligemma",
            **{**LLAVA_PARTS, "shares_prefix": False},
            attention="prefix",
            token_types="token_type_ids",
            typed_tokens="answer",
            caps_logits=True,
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
    """A model family without an entry in the table; the message gives the reason, or lists the families that have one."""


def family_of(config: Any) -> Family:
    """The family of a model by `config.model_type`; of an exported adapted model, that of its stock model. Raises `UnknownFamily`."""
    model_type = config.model_type
    name = str(model_type).removeprefix(EXPORTED)
    supported = ", ".join(sorted(FAMILIES))
    if name in REFUSED:
        raise UnknownFamily(f"models of type {model_type!r} cannot be handled: the family {REFUSED[name]}; take one of {supported}")
    if name not in FAMILIES:
        raise UnknownFamily(f"models of type {model_type!r} are not in the families table; it holds {supported}")
    return FAMILIES[name]


def image_token_id(config: Any) -> int:
    """The token id that `input_ids` have at each vision token. Raises `UnknownFamily`."""
    family_of(config)
    return int(config.image_token_id)
