"""Real configurations of the paper's recipes, written down here, and small twins of the same classes: for a dry run without the hub.

Sizes are those of the published checkpoints that the recipes name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers as hf

from theodolite.models.construction.build import word_tokenizer

IMAGE, VIDEO = "<image>", "<video>"
TEXTS = ("what is in the picture ? a tree and house",)
TEMPLATE = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ ' ' + part['text'] + ' ' }}{% endif %}{% endfor %}"
    "{{ '<answer>' if message['role'] == 'user' else '</s>' }}{% endfor %}"
)
QWEN_7B = {
    "vocab_size": 152064,
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "max_position_embeddings": 32768,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
    "tie_word_embeddings": False,
}
SIGLIP_400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
}
CLIP_L = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
SMALL_TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
SMALL_TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


@dataclass(frozen=True)
class PaperModel:
    """A recipe's model: its class, its real configuration or that of its twin, and the twin's image processor.

    `vision_tokens` is the number of tokens of a picture that FLOPs and activations are counted for, and `patches` that of the encoder's
    positions; in the families whose pictures keep their size they are assumptions, named in `picture`.
    """

    kind: Any
    config: Callable[[bool], Any]
    image_processor: Callable[[], Any]
    vision_tokens: int
    patches: int
    picture: str


def paper_model(recipe: str) -> PaperModel:
    """The model of a paper's recipe by the recipe's name."""
    return PAPER_MODELS[recipe]


def build_on_meta(paper: PaperModel) -> Any:
    """The real model on the meta device; its rotary tables, which no checkpoint holds, are real."""
    with torch.device("meta"):
        model = paper.kind(paper.config(False))
    for module in model.modules():
        rotary = getattr(module, "rotary_emb", None)
        if rotary is not None and hasattr(rotary, "config"):
            module.rotary_emb = type(rotary)(rotary.config)
    return model.train()


def build_twin(paper: PaperModel, seed: int = 0) -> tuple[Any, Any, Any]:
    """A small model of the same classes with random weights, its image processor, and a tokenizer with a chat template."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = paper.kind(paper.config(True))
    return model.train(), paper.image_processor(), twin_tokenizer()


def twin_tokenizer() -> Any:
    tokenizer = word_tokenizer(TEXTS)
    tokenizer.add_special_tokens({"extra_special_tokens": [VIDEO]}, replace_extra_special_tokens=False)
    tokenizer.padding_side = "right"
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _ids() -> dict[str, int]:
    """The twin's picture and video tokens."""
    tokenizer = twin_tokenizer()
    return {"image_token_id": tokenizer.convert_tokens_to_ids(IMAGE), "video_token_id": tokenizer.convert_tokens_to_ids(VIDEO)}


def _text(small: bool) -> dict[str, Any]:
    return {**QWEN_7B, **SMALL_TEXT, "vocab_size": len(twin_tokenizer())} if small else QWEN_7B


def _joined(tower: Any, sizes: Mapping[str, Any], has_class_token: bool, tokens: int) -> Callable[[bool], Any]:
    """The configuration that `join_vlm` writes for a tower and Qwen2.5-7B-Instruct."""

    def config(small: bool) -> Any:
        image = _ids()["image_token_id"] if small else 151665  # the first id behind Qwen2.5's own tokens
        return hf.LlavaConfig(
            vision_config=tower(**(SMALL_TOWER if small else sizes)),
            text_config=hf.Qwen2Config(**_text(small)),
            image_token_id=image,
            image_seq_length=16 if small else tokens,
            vision_feature_layer=-2 if has_class_token else -1,
            vision_feature_select_strategy="default" if has_class_token else "full",
            tie_word_embeddings=False,
        )

    return config


def _onevision(small: bool) -> Any:
    sides = (32, 64) if small else (384, 768, 1152, 1536, 1920, 2304)
    ids = _ids() if small else {"image_token_id": 151646, "video_token_id": 151647}
    return hf.LlavaOnevisionConfig(
        # The checkpoint's tower ends a layer before SigLIP's last.
        vision_config=hf.SiglipVisionConfig(**(SMALL_TOWER if small else {**SIGLIP_400M, "num_hidden_layers": 26}), vision_use_head=False),
        text_config=hf.Qwen2Config(**_text(small)),
        image_token_index=ids["image_token_id"],
        video_token_index=ids["video_token_id"],
        image_grid_pinpoints=[[height, width] for height in sides for width in sides],
        vision_aspect_ratio="anyres_max_9",
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )


def _qwen2_5_vl(small: bool) -> Any:
    ids = _ids() if small else {"image_token_id": 151655, "video_token_id": 151656}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584, "patch_size": 14}
    windows = {"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]}
    if small:
        vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4}
        windows = {"window_size": 16, "fullatt_block_indexes": [1]}
    sections = [2, 3, 3] if small else [16, 24, 24]
    text = {**_text(small), "rope_parameters": {**QWEN_7B["rope_parameters"], "mrope_section": sections}}  # type: ignore[dict-item]
    return hf.Qwen2_5_VLConfig(
        vision_config={**vision, **windows, "spatial_merge_size": 2, "temporal_patch_size": 2},
        text_config=hf.Qwen2_5_VLTextConfig(**text),
        vision_start_token_id=3 if small else 151652,
        vision_end_token_id=3 if small else 151653,
        tie_word_embeddings=False,
        **ids,
    )


def _clip_processor() -> Any:
    return hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def _siglip_processor() -> Any:
    return hf.SiglipImageProcessorPil(size={"height": 32, "width": 32})


def _onevision_processor() -> Any:
    pinpoints = [[height, width] for height in (32, 64) for width in (32, 64)]
    return hf.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints)


def _qwen_processor() -> Any:
    limits = {"shortest_edge": 24 * 24, "longest_edge": 48 * 48}
    return hf.Qwen2VLImageProcessorPil(size=limits, patch_size=4, merge_size=2, temporal_patch_size=2)


LLAVA = hf.LlavaForConditionalGeneration
PAPER_MODELS: Mapping[str, PaperModel] = {
    "laver-siglip2": PaperModel(
        LLAVA, _joined(hf.SiglipVisionConfig, SIGLIP_400M, False, 729), _siglip_processor, 729, 729, "384 x 384 pixels"
    ),
    "laver-clip": PaperModel(LLAVA, _joined(hf.CLIPVisionConfig, CLIP_L, True, 576), _clip_processor, 576, 577, "336 x 336 pixels"),
    "laver-qwen2.5-vl": PaperModel(
        hf.Qwen2_5_VLForConditionalGeneration, _qwen2_5_vl, _qwen_processor, 37 * 37, 4 * 37 * 37, "1,036 x 1,036 pixels"
    ),
    "laver-llava-onevision": PaperModel(
        hf.LlavaOnevisionForConditionalGeneration,
        _onevision,
        _onevision_processor,
        729 + 54 * 55,
        5 * 729,
        "768 x 768 pixels: a base view and 2 x 2 tiles",
    ),
}
