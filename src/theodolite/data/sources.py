"""Sources of examples: LLaVA-format JSON with a folder of pictures, and worlds. Hugging Face data sets are in `tables`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from theodolite.data.conversations import IMAGE, BadConversation, conversation_of, text_part
from theodolite.data.examples import ExampleSet
from theodolite.models.chat_rendering import Conversation
from theodolite.records.errors import BadInput
from theodolite.records.reading import BadJson, has_lone_surrogate, parse_json, printable, read_json, read_json_lines

# A picture, its file, or the file's bytes. Opened when a sample is made.
Picture = Image.Image | Path | bytes


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """Pictures and conversations about them, as messages of a chat template ({"role", "content": [{"type": "image"}, ...]}).

    Several conversations share the pictures in one sequence and do not attend to each other. `key` identifies the example in every epoch
    and process: its masks are drawn from it.
    """

    key: str
    pictures: tuple[Picture, ...]
    conversations: tuple[Conversation, ...]


@dataclass(frozen=True)
class Malformed:
    """Placeholder for a record that is not an example; dropped and counted like an unreadable picture."""

    key: str
    problem: str


def example_of(key: Any, turns: Any, pictures: tuple[Picture, ...]) -> TrainingExample | Malformed:
    """An example of one conversation, or `Malformed`. Without a key, its content gives one."""
    name = name_of(key, turns, pictures)
    try:
        return TrainingExample(name, pictures, (conversation_of(turns, len(pictures)),))
    except BadConversation as error:
        return Malformed(name, str(error))


def name_of(key: Any, turns: Any, pictures: tuple[Picture, ...] = ()) -> str:
    """The key as text. Without one, 16 hex digits of the SHA-256 of the turns and of the pictures' paths or bytes (if open: sizes)."""
    if key is not None:
        return str(key)
    digest = hashlib.sha256(json.dumps(turns, sort_keys=True, default=str).encode())
    for picture in pictures:
        digest.update(picture if isinstance(picture, bytes) else repr(picture if isinstance(picture, Path) else picture.size).encode())
    return digest.hexdigest()[:16]


def picture_below(folder: Path, name: str) -> Path:
    """The file of a record's picture. Raises `BadConversation` if its path leaves the folder; links within the folder are followed."""
    path = Path(os.path.normpath(folder.absolute() / name))
    if not path.is_relative_to(os.path.normpath(folder.absolute())):
        raise BadConversation(f"image is {name[:60]!r}, outside the folder of the pictures; give a folder that holds all of them")
    return folder / name


class LlavaJson(Dataset[TrainingExample | Malformed]):
    """Records of the LLaVA format: {id, image (one or a list, or none), conversations: [{from, value}, ...]}, `<image>` in the text.

    `json_path` is a JSON list, or one record per line if it ends in .jsonl. Raises `BadInput` if it is neither, with the number of the bad
    line, or if a path does not exist. A record that is not a conversation, or whose picture lies outside `picture_folder`, becomes
    `Malformed`; pictures are opened later, when a sample is made.
    """

    def __init__(self, json_path: Path | str, picture_folder: Path | str) -> None:
        self.path, self.folder = Path(json_path), Path(picture_folder)
        if not self.folder.is_dir():
            raise BadInput(f"there is no folder {self.folder}; give the folder to which the records' image paths are relative")
        lines = [json.dumps(record).encode() for record in _records(self.path)]
        # One block of bytes: reference counts of a list of dicts would make every loader worker copy its memory pages.
        self._ends = np.cumsum([0, *map(len, lines)])
        self._lines = b"".join(lines)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> TrainingExample | Malformed:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no record {index}; {self.path} holds {len(self)}")
        try:
            record = parse_json(self._lines[self._ends[index] : self._ends[index + 1]])
        except BadJson as error:  # nesting that was read with fewer calls above it
            return Malformed(str(index), f"the record {error}")
        if has_lone_surrogate(record):
            return Malformed(printable(record.get("id", index)), "a text has an unpaired surrogate; write it again in UTF-8")
        paths = record.get("image", record.get("images"))
        names = [paths] if isinstance(paths, str) else (paths or [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return Malformed(str(record.get("id", index)), f"image is {str(paths)[:60]!r}; expected a path, or a list of paths")
        try:
            pictures = tuple(picture_below(self.folder, name) for name in names)
        except BadConversation as error:
            return Malformed(str(record.get("id", index)), str(error))
        return example_of(record.get("id"), record.get("conversations"), pictures)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    expected = "a list of records {id, image, conversations}; a file of one record per line must end in .jsonl"
    records: Iterable[tuple[int, Any]]
    if path.suffix.lower() == ".jsonl":
        unit, records = "line", read_json_lines(path)
    else:
        try:
            value = read_json(path)
        except BadInput as error:
            raise BadInput(f"{error}; expected {expected}") from error
        unit, records = "record", enumerate(value, start=1) if isinstance(value, list) else ()
    number = 0
    for number, record in records:
        if not isinstance(record, dict):
            raise BadInput(f"{path}, {unit} {number}, is {str(record)[:60]!r}; expected {expected}")
        yield record
    if not number:
        raise BadInput(f"{path} holds no records; expected {expected}")


class WorldExamples(Dataset[TrainingExample]):
    """A world's pictures as examples, one conversation per question. For pictures of one size `collate.Collator` is faster."""

    def __init__(self, examples: ExampleSet) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TrainingExample:
        conversations = tuple(
            ({"role": "user", "content": [IMAGE, text_part(item.question)]}, {"role": "assistant", "content": [text_part(item.answer)]})
            for item in self.examples.questions[index]
        )
        return TrainingExample(self.examples.key(index), (Image.fromarray(self.examples.pictures[index]),), conversations)
