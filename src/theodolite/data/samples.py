"""Samples: an example's pictures and conversations as one token sequence that branches after the last picture."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from torch import Tensor

from theodolite.data.drops import Unfit
from theodolite.data.sources import Picture, TrainingExample
from theodolite.models.chat_rendering import MalformedConversation
from theodolite.models.conversation_tokenizer import IGNORE, ConversationTokenizer, TokenizedConversation
from theodolite.models.exported.grids import picture_grids
from theodolite.models.families import image_token_id
from theodolite.models.pictures import PictureReader, ProcessedPicture
from theodolite.records.errors import BadInput
from theodolite.worlds.decoding import UNDECODABLE, DecodedPicture, decode, strict_pillow

TooLong = Literal["drop", "refuse"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One sequence: a trunk (branch 0) up to the last picture's last token, then each conversation's rest as a branch (1, 2 ...).

    A single conversation is all trunk. `targets[i]` is the token after token i in its conversation, `IGNORE` where untrained; so an
    answer's last token takes no position. `grids` are the (tokens, 2) cells of each picture, `processed` its pixel inputs, both in order;
    `notes` are those of the decoder about its pictures (`decoding.NOTES`).
    """

    key: str
    tokens: tuple[int, ...]
    targets: tuple[int, ...]
    branch: tuple[int, ...]
    grids: tuple[Tensor, ...] = ()
    processed: tuple[ProcessedPicture, ...] = ()
    notes: tuple[str, ...] = ()


class SampleMaker:
    """Samples of at most `max_length` tokens from examples.

    A longer sample is truncated if the cut is after the last picture and leaves a target. Otherwise it is dropped, or an error
    (`too_long`): pictures are never cut.
    """

    def __init__(
        self, tokenizer: Any, reader: PictureReader, max_length: int, chat_template: str | None = None, too_long: TooLong = "drop"
    ) -> None:
        if max_length < 1:
            raise BadInput(f"max_length is {max_length}; give 1 or more tokens")
        self.reader, self.max_length, self.too_long = reader, max_length, too_long
        self.conversation_tokenizer = ConversationTokenizer(tokenizer, image_token_id(reader.config), reader.marker, chat_template)

    def make(self, example: TrainingExample) -> Sample:
        """The sample of an example. Raises `Unfit` with the reason if there is none, `BadInput` if it is too long and that is refused."""
        if not example.conversations:
            raise Unfit("malformed", "there is no conversation")
        decoded = [open_picture(picture) for picture in example.pictures]
        processed = self._process([each.image for each in decoded])
        placeholders = [picture.placeholder for picture in processed]
        try:
            conversations = [self.conversation_tokenizer.tokenize(conversation, placeholders) for conversation in example.conversations]
        except MalformedConversation as error:
            raise Unfit("malformed", str(error)) from error
        grids = tuple(grid for picture in processed for grid in picture_grids(self.reader.config, picture.inputs))
        image = self.conversation_tokenizer.image_token_id
        if conversations[0].tokens.count(image) != sum(len(grid) for grid in grids):
            raise Unfit("malformed", "a text holds an image token of its own")
        notes = tuple(note for each in decoded for note in each.facts.notes)
        sample = replace(join_conversations(example.key, conversations, image, grids, processed), notes=notes)
        return sample if len(sample.tokens) <= self.max_length else self._cut(sample)

    def _process(self, opened: Sequence[Image.Image]) -> tuple[ProcessedPicture, ...]:
        try:
            return tuple(self.reader.read_conversation(list(opened))) if opened else ()
        except UNDECODABLE as error:  # image processors differ in what they raise on thin and tiny pictures
            sizes = ", ".join(f"{picture.width} x {picture.height}" for picture in opened)
            raise Unfit("unreadable", f"the image processor refuses pictures of {sizes} ({error})") from error

    def _cut(self, sample: Sample) -> Sample:
        end = _trunk_length(sample.tokens, self.conversation_tokenizer.image_token_id)
        targets = sample.targets[: self.max_length]
        length = max((at + 1 for at, target in enumerate(targets) if target != IGNORE), default=0)
        if length >= end and length:
            return replace(sample, tokens=sample.tokens[:length], targets=targets[:length], branch=sample.branch[:length])
        inside = f"its pictures end at token {end}" if end > self.max_length else "no answer begins before"
        problem = f"{len(sample.tokens)} tokens where {self.max_length} are allowed, and {inside}"
        if self.too_long == "refuse":
            raise BadInput(
                f"example {sample.key} has {problem}; raise max_length, make pictures smaller, or let too long examples be dropped"
            )
        raise Unfit("too long", problem)


def join_conversations(
    key: str,
    conversations: Sequence[TokenizedConversation],
    image: int,
    grids: tuple[Tensor, ...] = (),
    processed: tuple[ProcessedPicture, ...] = (),
) -> Sample:
    """A sample of conversations with the same tokens up to the last image token. Raises `Unfit` if these differ."""
    first = conversations[0]
    if len(conversations) == 1:
        return Sample(key, first.tokens, first.targets, (0,) * len(first.tokens), grids, processed)
    end = _trunk_length(first.tokens, image)
    tokens, targets = list(first.tokens[:end]), list(first.targets[:end])
    branch = [0] * end
    for number, one in enumerate(conversations, start=1):
        if one.tokens[:end] != first.tokens[:end] or image in one.tokens[end:]:
            raise Unfit("malformed", "its conversations differ before the end of the last picture; put pictures before the questions")
        if end and one.targets[end - 1] != IGNORE:
            raise Unfit("malformed", "an answer follows the last picture at once, so that several cannot share it")
        tokens += one.tokens[end:]
        targets += one.targets[end:]
        branch += [number] * (len(one.tokens) - end)
    return Sample(key, tuple(tokens), tuple(targets), tuple(branch), grids, processed)


def open_picture(picture: Picture) -> DecodedPicture:
    """A picture in RGB, upright, transparent parts on white, as surveys see it (`worlds.decoding`), with notes about it.

    Raises `Unfit` if it is unreadable, has no known white, or is so large that it may be a decompression bomb.
    """
    name = f"{picture}" if isinstance(picture, Path) else "a picture"
    try:
        with strict_pillow(), ExitStack() as stack:
            if not isinstance(picture, Image.Image):
                picture = stack.enter_context(Image.open(BytesIO(picture) if isinstance(picture, bytes) else picture))
            most = Image.MAX_IMAGE_PIXELS
            if most is not None and picture.width * picture.height > most:
                raise Image.DecompressionBombError(f"{picture.width} x {picture.height} pixels are more than {most:,}")
            return decode(picture)
    except UNDECODABLE as error:
        raise Unfit("unreadable", f"{name} ({type(error).__name__}: {error})") from error


def _trunk_length(tokens: Sequence[int], image: int) -> int:
    """Number of tokens up to and including the last image token; 0 without one."""
    return next((at + 1 for at in range(len(tokens) - 1, -1, -1) if tokens[at] == image), 0)
