"""A pretrained vision tower and a pretrained language model, joined by a new connector into a stock LLaVA."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from theodolite.models.frontends import picture_size
from theodolite.records.errors import BadInput

IMAGE = "<image>"


def join_vlm(
    tower_name: str, language_model_name: str, attention: str = "sdpa", seed: int = 0
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA of a tower (CLIP, SigLIP, SigLIP2 ...) and a language model, weights of both as they are, and a random two-layer connector.

    A tower with a class token gives its patches' last layer but one, as LLaVA has it; others give all tokens of their last layer. Raises
    `BadInput` if the tower is none of fixed size, or the language model's tokenizer has no chat template.
    """
    tokenizer = AutoTokenizer.from_pretrained(language_model_name)
    if not tokenizer.chat_template:
        raise BadInput(f"{language_model_name} has no chat template; take an instruction-tuned language model")
    processor = AutoImageProcessor.from_pretrained(tower_name)
    whole = AutoModel.from_pretrained(tower_name, attn_implementation=attention)
    # Two-tower models keep the vision part within them.
    tower = getattr(whole, "vision_model", whole)
    language_model = AutoModelForCausalLM.from_pretrained(language_model_name, attn_implementation=attention)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    if len(tokenizer) > language_model.get_input_embeddings().num_embeddings:
        language_model.resize_token_embeddings(len(tokenizer))
    vision = tower.config
    side = picture_size(processor) // vision.patch_size
    if picture_size(processor) != vision.image_size:
        raise BadInput(
            f"{tower_name} takes pictures of {vision.image_size}, its image processor makes {picture_size(processor)}; give one that fits"
        )
    strategy = "default" if _has_class_token(tower) else "full"
    config = LlavaConfig(
        vision_config=vision,
        text_config=language_model.config,
        image_token_id=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=side**2,
        vision_feature_layer=-2 if strategy == "default" else -1,
        vision_feature_select_strategy=strategy,
        tie_word_embeddings=language_model.config.tie_word_embeddings,
    )
    model = _empty(config, attention, seed)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.language_model.load_state_dict(language_model.model.state_dict())
    model.lm_head.load_state_dict(language_model.get_output_embeddings().state_dict())
    return model, LlavaProcessor(
        image_processor=processor,
        tokenizer=tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=strategy,
        image_token=IMAGE,
        num_additional_image_tokens=1 if strategy == "default" else 0,
        chat_template=with_pictures(tokenizer.chat_template),
    )


def _empty(config: LlavaConfig, attention: str, seed: int) -> LlavaForConditionalGeneration:
    config._attn_implementation = attention
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config)


def _has_class_token(tower: Any) -> bool:
    return any("class_embedding" in name or "cls_token" in name for name, _ in tower.named_parameters())


def with_pictures(template: str) -> str:
    """A language model's chat template that takes content in parts, too: each message's parts become text first, a picture `<image>`."""
    flatten = (
        "{%- set ns = namespace(flat=[]) -%}"
        "{%- for message in messages -%}"
        "{%- if message['content'] is string -%}{%- set ns.flat = ns.flat + [message] -%}"
        "{%- else -%}"
        "{%- set text = namespace(value='') -%}"
        "{%- for part in message['content'] -%}"
        "{%- if part['type'] == 'image' -%}{%- set text.value = text.value + '" + IMAGE + "' -%}"
        "{%- else -%}{%- set text.value = text.value + part['text'] -%}{%- endif -%}"
        "{%- endfor -%}"
        "{%- set ns.flat = ns.flat + [dict(role=message['role'], content=text.value)] -%}"
        "{%- endif -%}"
        "{%- endfor -%}"
        "{%- set messages = ns.flat -%}"
    )
    return flatten + template
