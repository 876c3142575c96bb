"""The processor that a trainer saves beside its model: the one given, or that of the collator, so that the folder loads."""

from __future__ import annotations

from typing import Any

from theodolite.data.collate import Collator
from theodolite.data.packing import PackingCollator
from theodolite.models.processor import is_whole, processor_of_parts
from theodolite.records.errors import BadInput


def saved_processor(processing_class: Any, collator: Any, config: Any) -> Any:
    """A processor with tokenizer and image processor: `processing_class` if it has both, else that of the `collator`; None if neither has.

    Raises `BadInput` for a tokenizer or an image processor alone, where there is no collator that has the other.
    """
    if processing_class is not None and is_whole(processing_class):
        return processing_class
    if isinstance(collator, PackingCollator):
        if collator.processor is not None:
            return collator.processor
        return processor_of_parts(collator.reader.image_processor, collator.tokenizer, config, collator.chat_template)
    if isinstance(collator, Collator):
        return collator.tokenizer.processor
    if processing_class is not None:
        lacking = "a tokenizer" if hasattr(processing_class, "image_mean") else "an image processor"
        raise BadInput(
            f"processing_class is a {type(processing_class).__name__}, without {lacking}; give AutoProcessor.from_pretrained(...) of this "
            "model, or a PackingCollator as data_collator"
        )
    return None
