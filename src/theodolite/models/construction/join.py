"""A stock LLaVA from a vision encoder, a pretrained language model and a new connector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from theodolite.models.construction.encoders import Encoder, encoder_named
from theodolite.models.load import loading, with_memory
from theodolite.models.untrusted import NO_CODE, SAFE_WEIGHTS
from theodolite.records.errors import BadInput

IMAGE = "<image>"
# Settings of language models that divide, multiply or cap the logits after the head, which LLaVA does not do.
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling")
WORKS = "Llama, Mistral, Qwen2, Qwen3, Gemma, Gemma 3 (text), Phi-3, OLMo2, SmolLM3, StableLM and GPT-NeoX work"


def join_vlm(
    encoder: str, language_model: str, attention: str = "sdpa", seed: int = 0, chat_template: str | None = None
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA in float32 with the weights of an encoder and a language model, and a random two-layer connector; and its processor.

    `encoder` is `conv`, `patches:SIZE/PATCH`, `lite0:SIZE/STRIDE` or a Hugging Face vision model (folder or hub name); `language_model` a
    Hugging Face causal language model, `FILE.gguf`, or `smollm2`. Of an encoder with a class token, LLaVA takes the patches of the last
    layer but one, as in its paper; of others, all tokens of the last layer. The connector depends on `seed` alone.

    Raises `BadInput` if either cannot be loaded or joined, or there is no chat template.
    """
    decoder, tokenizer = language_model_named(language_model, attention)
    template = chat_template or tokenizer.chat_template
    if not template:
        raise BadInput(
            f"{language_model} has no chat template; take an instruction-tuned language model, or give a template with --chat-template"
        )
    _check_structure(language_model, decoder)
    with torch.random.fork_rng():
        vision = encoder_named(encoder, attention)
        _add_picture_token(decoder, tokenizer)
        torch.manual_seed(seed)
        model = _joined(vision, decoder, tokenizer.convert_tokens_to_ids(IMAGE), attention)
    if any(parameter.is_meta for parameter in model.parameters()):  # another process of this machine has the weights, and checks them
        model = with_memory(model, torch.device("cpu"))
    else:
        _check_same_logits(model, decoder, language_model)
    return model, LlavaProcessor(
        image_processor=vision.image_processor,
        tokenizer=tokenizer,
        patch_size=vision.token_size,
        vision_feature_select_strategy=model.config.vision_feature_select_strategy,
        image_token=IMAGE,
        num_additional_image_tokens=1 if vision.has_class_token else 0,
        chat_template=with_pictures(template),
    )


def language_model_named(name: str, attention: str = "sdpa") -> tuple[Any, Any]:
    """A causal language model in float32 and its tokenizer: `smollm2`, `FILE.gguf`, or a Hugging Face folder or name. Raises `BadInput`."""
    if name == "smollm2" or name.endswith(".gguf"):
        from theodolite.models.construction.gguf import load_gguf, smollm2_path

        return load_gguf(smollm2_path() if name == "smollm2" else Path(name), attention)
    with loading("language model", name):
        tokenizer = AutoTokenizer.from_pretrained(name, **NO_CODE)
        config = AutoConfig.from_pretrained(name, **NO_CODE)
        _check_config(name, config)
        options = {"dtype": torch.float32, "attn_implementation": attention, **SAFE_WEIGHTS}
        model = AutoModelForCausalLM.from_pretrained(name, config=config, **options)
    return model, tokenizer


def _check_config(name: str, config: Any) -> None:
    """Raises `BadInput` for language models whose configuration shows that LLaVA would change their logits."""
    scaled = [f"{setting} {value}" for setting in LOGIT_SETTINGS if (value := getattr(config, setting, None)) not in (None, 1)]
    if scaled:
        raise BadInput(f"{name} ({config.model_type}) changes its logits ({', '.join(scaled)}), which LLaVA would leave out; {WORKS}")
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise BadInput(f"{name} ({config.model_type}) is no causal language model; {WORKS}")
    with torch.device("meta"):
        _check_structure(name, AutoModelForCausalLM.from_config(config))


def _check_structure(name: str, decoder: Any) -> None:
    """Raises `BadInput` unless `AutoModel` makes the decoder's base model, and the head is a matrix, tied as in LLaVA if it is tied."""
    base, head = decoder.base_model, decoder.get_output_embeddings()
    problem = ""
    if base is decoder or type(base) is not MODEL_MAPPING[type(decoder.config)]:
        problem = "has its layers in another class than AutoModel makes"
    elif not isinstance(head, nn.Linear) or head.bias is not None:
        problem = "has a head that is more than a matrix"
    elif decoder.config.tie_word_embeddings and not isinstance(getattr(base, "embed_tokens", None), nn.Embedding):
        problem = "ties its head to a table that is not called embed_tokens"
    if problem:
        raise BadInput(f"{name} ({decoder.config.model_type}) {problem}, which LLaVA cannot take; {WORKS}")


def _add_picture_token(decoder: Any, tokenizer: Any) -> None:
    """Adds `<image>` to tokenizer, table and head. Its rows are the means of the rows of the tokenizer's own tokens."""
    is_new, num_tokens = IMAGE not in tokenizer.get_vocab(), len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]}, replace_extra_special_tokens=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    old = decoder.get_input_embeddings().num_embeddings
    if len(tokenizer) > old:
        decoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    # The new token's row is untrained, also where it is one of the table's rows for no token, which many models have so that their
    # number divides. With the mean of the others, the token is as unlikely in answers as the average word.
    new = list(range(old, len(tokenizer))) + ([tokenizer.convert_tokens_to_ids(IMAGE)] if is_new else [])
    for table in {decoder.get_input_embeddings().weight, decoder.get_output_embeddings().weight}:
        table.data[new] = table.data[: min(old, num_tokens)].mean(dim=0)


def _joined(encoder: Encoder, decoder: Any, image_token_id: int, attention: str) -> LlavaForConditionalGeneration:
    """The LLaVA with the modules of encoder and decoder themselves, and a new connector."""
    config = LlavaConfig(
        vision_config=encoder.tower.config,
        text_config=decoder.config,
        image_token_id=image_token_id,
        image_seq_length=encoder.num_tokens,
        vision_feature_layer=-2 if encoder.has_class_token else -1,
        vision_feature_select_strategy="default" if encoder.has_class_token else "full",
        tie_word_embeddings=decoder.config.tie_word_embeddings,
    )
    config._attn_implementation = attention
    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    connector = type(model.model.multi_modal_projector)(config)
    model.model.multi_modal_projector = connector.apply(model._init_weights)
    model.model.vision_tower = encoder.tower
    model.model.language_model = decoder.base_model
    model.lm_head = decoder.get_output_embeddings()
    model.tie_weights()
    model.generation_config = decoder.generation_config
    return model.eval()


def _check_same_logits(model: LlavaForConditionalGeneration, decoder: Any, name: str) -> None:
    """Raises `BadInput` if the joined model's logits on text are not bitwise those of the language model."""
    size = decoder.get_input_embeddings().num_embeddings
    ids = torch.arange(1, 9)[None] * (size // 9 or 1) % size
    with torch.no_grad():
        same = torch.equal(model(input_ids=ids).logits, decoder(input_ids=ids).logits)
    if not same:
        raise BadInput(f"{name} ({decoder.config.model_type}) gives other logits on text in LLaVA than alone; {WORKS}")


def with_pictures(template: str) -> str:
    """A language model's chat template, extended to content in parts: parts are first joined to text, with `<image>` for a picture."""
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
