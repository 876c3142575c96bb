"""Builds a VLM from an encoder and a language model, and writes it to disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from theodolite.asking.answer import Question
from theodolite.asking.prompts import TEMPLATES
from theodolite.asking.rows import rows_of
from theodolite.models.construction.join import join_vlm
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.device import DType
from theodolite.models.export import export_vlm
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken, whole_folder
from theodolite.records.reading import read_text

# A tokenizer may join a prompt's end to one answer and not to another.
CHOICES = ("A tree.", "a tree", "red", "blue", "yes", "no", "Yes", "No", "two", "3")


def build_model(
    encoder: str, language_model: str, out: Path, *, seed: int, dtype: DType, chat_template: Path | None, overwrite: bool
) -> tuple[str, ...]:
    """Writes the joined model and its processor to `out`, and returns a description, one line per part.

    Raises `BadInput` for parts that cannot be loaded or joined, and for a chat template that does not fit questions about a picture.
    """
    refuse_taken(out, overwrite=overwrite)
    template = None if chat_template is None else _read(chat_template)
    model, processor = join_vlm(encoder, language_model, seed=seed, chat_template=template)
    _refuse_unaskable(processor, model.config.image_seq_length)
    model.to(getattr(torch, dtype))
    with whole_folder(out, overwrite=overwrite) as folder:
        export_vlm(model, processor, folder)
    vision, text, parts = model.config.vision_config, model.config.text_config, model.model
    return (
        f"encoder: {encoder} ({vision.model_type}), {model.config.image_seq_length} tokens of {vision.hidden_size} a picture of "
        f"{vision.image_size} pixels, {_millions(parts.vision_tower)}",
        f"connector: two layers, new, {_millions(parts.multi_modal_projector)}",
        f"language model: {language_model} ({text.model_type}), {text.num_hidden_layers} layers of {text.hidden_size}, "
        f"{_millions(parts.language_model)}",
    )


def _refuse_unaskable(processor: Any, num_picture_tokens: int) -> None:
    """Raises `BadInput` for a chat template with which a survey could not score answers, in any style of prompt."""
    questions = {number: Question(0, text, CHOICES) for number, text in enumerate(("What is in the picture?", "How many?"))}
    try:
        for style in TEMPLATES:
            list(rows_of(questions, QuestionTokenizer(processor, num_picture_tokens), "picture", style))
    except BadInput as error:
        raise BadInput(f"a survey could not ask with this chat template: {error}; give another with --chat-template") from error


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except BadInput as error:
        raise BadInput(f"no chat template can be read from {error}; give a Jinja template as UTF-8 text") from error


def _millions(part: nn.Module) -> str:
    return f"{sum(parameter.numel() for parameter in part.parameters()) / 1e6:,.1f} M parameters"
