"""A tiny random model of every family, with an image processor on Pillow, a word-level tokenizer and a chat template. No real weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
import transformers as hf
from PIL import Image
from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from theodolite.models.families import FAMILIES, family_of, image_token_id
from theodolite.models.pictures import PictureReader

NAMES = tuple(FAMILIES)
HIDDEN = 32
# What each family's chat template writes for a picture; the reader then expands the marker in it.
WRITTEN = {
    "llava": "<image>",
    "llava_onevision": "<image>",
    "qwen2_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen2_5_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "qwen3_vl": "<|vision_start|><|image_pad|><|vision_end|>",
    "smolvlm": "<image>",
    "idefics3": "<image>",
    "paligemma": "<image>",
    "gemma3": "<start_of_image>",
    "internvl": "<IMG_CONTEXT>\n",
}
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}<user>"
    "{% for part in message['content'] %}{{ PICTURE if part['type'] == 'image' else part['text'] }}{% endfor %}<assistant>"
    "{% else %}{{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
# PaliGemma's Processor puts <bos> behind the pictures and a line break behind the question; a template for it must do the same.
PREFIX_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{% for part in message['content'] if part['type'] == 'image' %}<image>{% endfor %}<bos>"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{{ '\\n' }}"
    "{% else %}{{ message['content'][0]['text'] }}</s>{% endif %}{% endfor %}"
)
PICTURE_SIGNS = (
    *("<image>", "<video>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
    *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
)
WORDS = "here is the original image and are some crops to help you see better a b c d e f g h what colour shape yes no red blue round"
# So that no two choices of the world's questions about shape and colour are one unknown word, which would tie.
CHOICES = "square triangular crossed yellow green"
SPECIAL = ("<pad>", "<unk>", "<bos>", "<user>", "<assistant>", "</s>", *PICTURE_SIGNS)
VOCABULARY = {sign: number for number, sign in enumerate((*SPECIAL, "\n", "\n\n", "Here", *WORDS.split(), *CHOICES.split()))}
# Named as the library's Processors look them up.
ATTRIBUTES = {
    "gemma3": {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"},
    "internvl": {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    },
}
TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
    "pad_token_id": VOCABULARY["<pad>"],
    "bos_token_id": VOCABULARY["<bos>"],
    "eos_token_id": VOCABULARY["</s>"],
}
TOWER = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 8}
# Sections of the 8 frequencies of a head for time, row and column; Qwen3-VL interleaves them, which needs the largest first.
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
INTERLEAVED = {"rope_parameters": {**MROPE["rope_parameters"], "mrope_section": [3, 3, 2]}, "head_dim": 16}
NORM = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_convert_rgb": True}

SIZES = ((40, 40), (24, 60), (56, 30), (33, 71))

Built = tuple[Any, type, Any]


def tiny(name: str, seed: int = 0, text_layers: int = 2) -> tuple[Any, Any, Any]:
    """A family's real class with random weights (fp32, in evaluation mode), its image processor, and a tokenizer with a chat template."""
    config, kind, image_processor = BUILDERS[name](text_layers)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for weight in model.parameters():
            spread(weight.data)
    return model.eval(), image_processor, tokenizer(name)


def spread(weight: Tensor) -> None:
    """Matrices that keep the size of what they are given, and norms that differ: else attention and positions would hardly show."""
    if weight.ndim > 1:
        weight.normal_(std=(weight[0].numel()) ** -0.5)
    elif bool((weight == weight[0]).all()):
        weight.add_(0.2 * torch.randn_like(weight))


def tokenizer(name: str) -> Any:
    """One token a word, sign or line break; its template writes user, pictures and text as they come, then assistant, answer and end."""
    model = Tokenizer(WordLevel(dict(VOCABULARY), unk_token="<unk>"))
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    model.add_special_tokens([AddedToken(sign, normalized=False) for sign in SPECIAL])
    model.add_tokens([AddedToken(sign, normalized=False) for sign in ("\n\n", "\n")])
    found = hf.PreTrainedTokenizerFast(
        tokenizer_object=model,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="</s>",
        padding_side="right",
        extra_special_tokens=ATTRIBUTES.get(name, {}),
        model_input_names=["input_ids", "attention_mask"],
    )
    found.chat_template = PREFIX_TEMPLATE if name == "paligemma" else TEMPLATE.replace("PICTURE", repr(WRITTEN[name]))
    return found


def picture(seed: int, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Noise of (height, width)."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8))


@cache
def parts(name: str) -> tuple[Any, Any]:
    """The image processor and the tokenizer of a tiny model."""
    return BUILDERS[name](1)[2], tokenizer(name)


def inputs(
    name: str, model: Any, num_pictures: Sequence[int] = (1, 2), text_lengths: Sequence[int] = (9, 4), seed: int = 0
) -> dict[str, Tensor]:
    """Keyword arguments of a direct forward: a row for each number of pictures, their sizes different, padded on the right.

    Each row has the pictures, then so many words; of PaliGemma's words the last half are the answer, whatever they say.
    """
    family, (image_processor, words) = family_of(model.config), parts(name)
    reader = PictureReader(image_processor, words, model.config)
    draw = np.random.default_rng(seed)
    reads, rows = [], []
    for number, length in zip(num_pictures, text_lengths, strict=True):
        pictures = [picture(seed * 100 + len(reads) + at, SIZES[(len(reads) + at) % len(SIZES)]) for at in range(number)]
        own = reader.read_conversation(pictures)
        text = "<user>" + reader.expand(WRITTEN[name] * number, own) + " ".join(draw.choice(WORDS.split(), length))
        rows.append(torch.tensor(words(text, add_special_tokens=False)["input_ids"]))
        reads += own
    ids = pad_sequence(rows, batch_first=True, padding_value=words.pad_token_id)
    mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    behind = mask.flip(1).cumsum(1).flip(1) * mask  # words from here to the row's end
    types = {
        "none": {},
        "picture": {family.token_types: (ids == image_token_id(model.config)).long()},
        "answer": {family.token_types: (behind <= torch.tensor(text_lengths)[:, None] // 2).long() * mask},
    }
    return {"input_ids": ids, "attention_mask": mask, **types[family.typed_tokens], **reader.join(reads)}


def run(model: Any, given: Mapping[str, Tensor]) -> Any:
    with torch.no_grad():
        return model(**given, use_cache=False)


def edited(
    model: Any, given: Mapping[str, Tensor], edit: Callable[[dict[str, Any]], dict[str, Any]]
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Logits and last hidden states with the language model's keyword arguments edited, and what they were."""
    seen: dict[str, Any] = {}
    kept: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        seen.update(kwargs, args=args)
        return args, {**kwargs, **edit(kwargs)}

    language_model = model.get_submodule(family_of(model.config).language_model)
    handles = (
        language_model.register_forward_pre_hook(before, with_kwargs=True),
        language_model.register_forward_hook(lambda module, args, output: kept.append(output.last_hidden_state)),
    )
    try:
        return run(model, given).logits, kept[0], seen
    finally:
        for handle in handles:
            handle.remove()


def features(model: Any, given: Mapping[str, Tensor]) -> list[Tensor]:
    """What the stock model merges into the sequence: (token, dim) for each entry of its own list of pictures."""
    taken = {key: value for key, value in given.items() if key in family_of(model.config).pixel_inputs}
    with torch.no_grad():
        return list(model.model.get_image_features(**taken, return_dict=True).pooler_output)


def processor(name: str, words: Any) -> Any:
    """The library's Processor for a tiny model; several need torchvision."""
    image_processor = parts(name)[0]
    builders: Mapping[str, Callable[[], Any]] = {
        "llava": lambda: hf.LlavaProcessor(image_processor, words, 8, "default", num_additional_image_tokens=1),
        "llava_onevision": lambda: hf.LlavaOnevisionProcessor(
            image_processor, words, hf.LlavaOnevisionVideoProcessor(), 16, "full", vision_aspect_ratio="anyres_max_2"
        ),
        "qwen2_vl": lambda: hf.Qwen2VLProcessor(image_processor, words, hf.Qwen2VLVideoProcessor()),
        "qwen2_5_vl": lambda: hf.Qwen2_5_VLProcessor(image_processor, words, hf.Qwen2VLVideoProcessor()),
        "qwen3_vl": lambda: hf.Qwen3VLProcessor(image_processor, words, hf.Qwen3VLVideoProcessor()),
        "idefics3": lambda: hf.Idefics3Processor(image_processor, words, image_seq_len=4),
        "paligemma": lambda: hf.PaliGemmaProcessor(image_processor, words),
        "gemma3": lambda: hf.Gemma3Processor(image_processor, words, image_seq_length=4),
        "internvl": lambda: hf.InternVLProcessor(image_processor, words, hf.InternVLVideoProcessor(), image_seq_length=4),
    }
    return builders[name]()


def bare_processor(name: str) -> Any:
    """A library Processor without its parts that need torchvision: as much of it as writes pictures."""
    models, image_processor = hf.models, parts(name)[0]
    frames = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>", "image_seq_len": 4}
    base_view = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_2"}
    own: Mapping[str, tuple[type, dict[str, Any]]] = {
        "llava_onevision": (models.llava_onevision.processing_llava_onevision.LlavaOnevisionProcessor, base_view),
        "qwen2_vl": (models.qwen2_vl.processing_qwen2_vl.Qwen2VLProcessor, {}),
        "qwen2_5_vl": (models.qwen2_5_vl.processing_qwen2_5_vl.Qwen2_5_VLProcessor, {}),
        "qwen3_vl": (models.qwen3_vl.processing_qwen3_vl.Qwen3VLProcessor, {}),
        "smolvlm": (models.smolvlm.processing_smolvlm.SmolVLMProcessor, frames),
        "internvl": (models.internvl.processing_internvl.InternVLProcessor, {**ATTRIBUTES["internvl"], "image_seq_length": 4}),
    }
    kind, attributes = own[name]
    found = kind.__new__(kind)
    sign = WRITTEN[name].removeprefix("<|vision_start|>").removesuffix("<|vision_end|>").strip()
    vars(found).update(attributes, image_token=sign, image_processor=image_processor)
    return found


def _llava(layers: int) -> Built:
    vision = hf.CLIPVisionConfig(image_size=32, **TOWER)
    config = hf.LlavaConfig(
        vision_config=vision,
        text_config=hf.LlamaConfig(num_hidden_layers=layers, **TEXT),
        image_token_index=VOCABULARY["<image>"],
        image_seq_length=16,
        vision_feature_layer=-1,
    )
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    return config, hf.LlavaForConditionalGeneration, hf.CLIPImageProcessorPil(**sizes, **NORM)


def _llava_onevision(layers: int) -> Built:
    pinpoints = [[32, 32], [32, 64], [64, 32], [64, 64], [32, 96], [96, 32], [32, 128], [128, 32]]
    config = hf.LlavaOnevisionConfig(
        vision_config=hf.SiglipVisionConfig(image_size=32, vision_use_head=False, **TOWER),
        text_config=hf.Qwen2Config(num_hidden_layers=layers, **TEXT),
        image_token_index=VOCABULARY["<image>"],
        video_token_index=VOCABULARY["<video>"],
        image_grid_pinpoints=pinpoints,
        vision_aspect_ratio="anyres_max_2",
    )
    processor = hf.LlavaOnevisionImageProcessorPil(size={"height": 32, "width": 32}, image_grid_pinpoints=pinpoints, **NORM)
    return config, hf.LlavaOnevisionForConditionalGeneration, processor


def _qwen(layers: int, config: type, text: type, kind: type, vision: Mapping[str, Any], **special: Any) -> Built:
    built = config(
        vision_config={"depth": 1, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, **vision},
        text_config=text(num_hidden_layers=layers, **TEXT, **special),
        image_token_id=VOCABULARY["<|image_pad|>"],
        video_token_id=VOCABULARY["<|video_pad|>"],
        vision_start_token_id=VOCABULARY["<|vision_start|>"],
        vision_end_token_id=VOCABULARY["<|vision_end|>"],
    )
    limits = {"shortest_edge": 24 * 24, "longest_edge": 48 * 48}
    return built, kind, hf.Qwen2VLImageProcessorPil(size=limits, patch_size=4, merge_size=2, temporal_patch_size=2, **NORM)


def _qwen2_vl(layers: int) -> Built:
    vision = {"embed_dim": 16, "hidden_size": HIDDEN, "mlp_ratio": 2}
    return _qwen(layers, hf.Qwen2VLConfig, hf.Qwen2VLTextConfig, hf.Qwen2VLForConditionalGeneration, vision, **MROPE)


def _qwen2_5_vl(layers: int) -> Built:
    # Two layers and a window smaller than the picture, so that the encoder's window order is really undone.
    vision = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": HIDDEN, "depth": 2}
    windows = {"window_size": 16, "fullatt_block_indexes": [1]}
    return _qwen(
        layers, hf.Qwen2_5_VLConfig, hf.Qwen2_5_VLTextConfig, hf.Qwen2_5_VLForConditionalGeneration, {**vision, **windows}, **MROPE
    )


def _qwen3_vl(layers: int) -> Built:
    vision = {"hidden_size": 16, "intermediate_size": 24, "out_hidden_size": HIDDEN, "depth": 2}
    deep = {"deepstack_visual_indexes": [0], "num_position_embeddings": 36}
    both = {**vision, **deep}
    return _qwen(layers, hf.Qwen3VLConfig, hf.Qwen3VLTextConfig, hf.Qwen3VLForConditionalGeneration, both, **INTERLEAVED)


def _placed(layers: int, config: type, kind: type, processor: type, prefix: str) -> Built:
    built = config(
        vision_config={"model_type": prefix, "image_size": 32, **TOWER},
        text_config=hf.LlamaConfig(num_hidden_layers=layers, **TEXT),
        image_token_id=VOCABULARY["<image>"],
        scale_factor=2,
        pad_token_id=VOCABULARY["<pad>"],
    )
    return built, kind, processor(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, **NORM)


def _smolvlm(layers: int) -> Built:
    parts = (hf.SmolVLMConfig, hf.SmolVLMForConditionalGeneration, hf.SmolVLMImageProcessorPil)
    return _placed(layers, *parts, "smolvlm_vision")


def _idefics3(layers: int) -> Built:
    parts = (hf.Idefics3Config, hf.Idefics3ForConditionalGeneration, hf.Idefics3ImageProcessorPil)
    return _placed(layers, *parts, "idefics3_vision")


def _paligemma(layers: int) -> Built:
    config = hf.PaliGemmaConfig(
        vision_config=hf.SiglipVisionConfig(image_size=32, vision_use_head=False, **TOWER),
        text_config=hf.GemmaConfig(num_hidden_layers=layers, head_dim=16, **TEXT),
        image_token_index=VOCABULARY["<image>"],
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    )
    processor = hf.SiglipImageProcessorPil(size={"height": 32, "width": 32}, **NORM)
    processor.image_seq_length = 16
    return config, hf.PaliGemmaForConditionalGeneration, processor


def _gemma3(layers: int) -> Built:
    text = hf.Gemma3TextConfig(
        num_hidden_layers=layers,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=6,
        layer_types=["sliding_attention" if layer % 2 == 0 else "full_attention" for layer in range(layers)],
        **TEXT,
    )
    config = hf.Gemma3Config(
        vision_config=hf.SiglipVisionConfig(image_size=32, vision_use_head=False, **TOWER),
        text_config=text,
        mm_tokens_per_image=4,
        boi_token_index=VOCABULARY["<start_of_image>"],
        eoi_token_index=VOCABULARY["<end_of_image>"],
        image_token_index=VOCABULARY["<image_soft_token>"],
    )
    crops = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 16,
        "pan_and_scan_max_num_crops": 2,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    return config, hf.Gemma3ForConditionalGeneration, hf.Gemma3ImageProcessorPil(size={"height": 32, "width": 32}, **crops, **NORM)


def _internvl(layers: int) -> Built:
    config = hf.InternVLConfig(
        vision_config={"image_size": [32, 32], **TOWER, "patch_size": [8, 8]},
        text_config=hf.Qwen2Config(num_hidden_layers=layers, **TEXT),
        image_token_id=VOCABULARY["<IMG_CONTEXT>"],
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    processor = hf.GotOcr2ImageProcessorPil(size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=4, **NORM)
    return config, hf.InternVLForConditionalGeneration, processor


BUILDERS: Mapping[str, Callable[[int], Built]] = {
    "llava": _llava,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "smolvlm": _smolvlm,
    "idefics3": _idefics3,
    "paligemma": _paligemma,
    "gemma3": _gemma3,
    "internvl": _internvl,
}
