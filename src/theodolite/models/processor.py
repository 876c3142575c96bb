"""A model's processor: the library's own where it loads, else its image processor and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

from theodolite.models.families import image_token_id
from theodolite.records.errors import BadInput


class ProcessorParts:
    """An image processor and a tokenizer, with the attribute names of the library's Processors.

    Several Processors need torchvision for videos; pictures and text do not. Raises `BadInput` if the tokenizer lacks the configuration's
    image token.
    """

    def __init__(self, image_processor: Any, tokenizer: Any, config: Any, chat_template: str | None = None) -> None:
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self.chat_template = chat_template or tokenizer.chat_template
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
        """Writes image processor and tokenizer to a folder."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def load_processor(path: str | Path, config: Any) -> Any:
    """The Processor of a saved model; `ProcessorParts` where the Processor needs torchvision, which is not installed."""
    try:
        return AutoProcessor.from_pretrained(path)
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error).lower():
            raise
    return ProcessorParts(AutoImageProcessor.from_pretrained(path, backend="pil"), AutoTokenizer.from_pretrained(path), config)
