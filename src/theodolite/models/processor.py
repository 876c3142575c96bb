"""A model's processor: the library's own where it loads, else its image processor and tokenizer."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.utils import CHAT_TEMPLATE_FILE

from theodolite.models.families import family_of, image_token_id
from theodolite.models.untrusted import NO_CODE
from theodolite.records.errors import BadInput


class ProcessorParts:
    """An image processor and a tokenizer, with the attribute names of the library's Processors.

    Several Processors need torchvision for videos; pictures and text do not. Raises `BadInput` if the tokenizer lacks the configuration's
    image token.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, config: Any, chat_template: str | None = None) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.chat_template = chat_template or tokenizer.chat_template
        self.processor_class = PROCESSOR_MAPPING_NAMES[family_of(config).name]
        self.image_token_id = image_token_id(config)
        self.image_token = tokenizer.convert_ids_to_tokens(self.image_token_id)
        if self.image_token is None:
            raise BadInput(
                f"the tokenizer has no token {self.image_token_id}, the configuration's image token; take this model's tokenizer"
            )

    def apply_chat_template(self, messages: list[dict[str, Any]], **options: Any) -> Any:
        """The rendered conversation, by the tokenizer."""
        return self.tokenizer.apply_chat_template(messages, chat_template=self.chat_template, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes image processor and tokenizer to a folder, with the name of the Processor that `AutoProcessor` then makes of them."""
        self.tokenizer._set_processor_class(self.processor_class)
        for part in (self.image_processor, self.tokenizer):
            part.save_pretrained(folder)
        if isinstance(self.chat_template, str):
            (Path(folder) / CHAT_TEMPLATE_FILE).write_text(self.chat_template)


def load_processor(path: str | Path, config: Any) -> Any:
    """The Processor of a saved model, with its image processor on Pillow; `ProcessorParts` where the Processor has a part for videos.

    Those parts need torchvision, and the same is loaded with and without it.
    """
    image_processor, tokenizer = (
        AutoImageProcessor.from_pretrained(path, backend="pil", **NO_CODE),
        AutoTokenizer.from_pretrained(path, **NO_CODE),
    )
    kind = getattr(transformers, PROCESSOR_MAPPING_NAMES[family_of(config).name])
    if "video_processor" in inspect.signature(kind.__init__).parameters:
        return ProcessorParts(image_processor, tokenizer, config)
    settings, _ = kind.get_processor_dict(path)
    return kind.from_args_and_dict([image_processor, tokenizer], settings)


def is_whole(processor: Any) -> bool:
    """Whether a `processing_class` holds both a tokenizer and an image processor."""
    return hasattr(processor, "tokenizer") and hasattr(processor, "image_processor")


def processor_of_parts(image_processor: Any, tokenizer: Any, config: Any, chat_template: str | None = None) -> Any:
    """The family's own Processor where it needs numbers from the configuration and no torchvision, else `ProcessorParts`.

    Either way the saved files are those from which `AutoProcessor` makes the family's Processor.
    """
    kind = getattr(transformers, PROCESSOR_MAPPING_NAMES[family_of(config).name])
    names = inspect.signature(kind.__init__).parameters
    settings = {name: value for name, value in _picture_settings(config).items() if name in names}
    if "video_processor" in names or not settings:
        return ProcessorParts(image_processor, tokenizer, config, chat_template)
    return kind(image_processor=image_processor, tokenizer=tokenizer, chat_template=chat_template or tokenizer.chat_template, **settings)


def _picture_settings(config: Any) -> dict[str, Any]:
    """Arguments of the library's Processors, which they need to write a picture's image tokens."""
    vision = config.vision_config
    strategy = getattr(config, "vision_feature_select_strategy", None)
    side = getattr(vision, "image_size", 0)
    has_class_token = strategy == "default" or vision.model_type == "clip_vision_model"
    return {
        "patch_size": getattr(vision, "patch_size", None),
        "vision_feature_select_strategy": strategy,
        "num_additional_image_tokens": int(has_class_token),
        "image_seq_length": getattr(config, "mm_tokens_per_image", None),
        "image_seq_len": (side // vision.patch_size // config.scale_factor) ** 2 if hasattr(config, "scale_factor") else None,
    }
