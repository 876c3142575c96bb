"""Where examples come from: LLaVA-format JSON with a folder of pictures, and worlds. Hugging Face data sets are in `tables`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from theodolite.data.conversations import IMAGE, BadConversation, Conversation, conversation_of, text_part
from theodolite.data.examples import ExampleSet
from theodolite.records.errors import BadInput

# A picture, or where it lies: a file, or a file's content. Opened only when a sample is made of it.
Picture = Image.Image | Path | bytes


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """Pictures and conversations about them, as messages of a chat template ({"role", "content": [{"type": "image"}, ...]}).

    Several conversations about the same pictures share them in one sequence, each blind to the others. `key` names the example wherever
    and whenever it is met: what is drawn for its masks depends on it.
    """

    key: str
    pictures: tuple[Picture, ...]
    conversations: tuple[Conversation, ...]


@dataclass(frozen=True)
class Malformed:
    """What stands in a source where a record cannot be read as an example; it is dropped and counted like an unreadable picture."""

    key: str
    problem: str


def example_of(key: Any, turns: Any, pictures: tuple[Picture, ...]) -> TrainingExample | Malformed:
    """An example of one conversation. Without a key its content names it."""
    name = name_of(key, turns, pictures)
    try:
        return TrainingExample(name, pictures, (conversation_of(turns, len(pictures)),))
    except BadConversation as error:
        return Malformed(name, str(error))


def name_of(key: Any, turns: Any, pictures: tuple[Picture, ...] = ()) -> str:
    """The key in words. Without one, 16 hex digits of the SHA-256 of the turns and of the pictures' paths or bytes (if open: sizes)."""
    if key is not None:
        return str(key)
    digest = hashlib.sha256(json.dumps(turns, sort_keys=True, default=str).encode())
    for picture in pictures:
        digest.update(picture if isinstance(picture, bytes) else repr(picture if isinstance(picture, Path) else picture.size).encode())
    return digest.hexdigest()[:16]


class LlavaJson(Dataset[TrainingExample | Malformed]):
    """Records of the LLaVA format: {id, image (one or a list, or none), conversations: [{from, value}, ...]}, `<image>` in the text.

    `json_path` is a JSON list, or a file of one record a line if it ends in .jsonl. Raises `BadInput` if it is neither, or if there is no
    such file or folder. A record that is no conversation becomes `Malformed`; pictures are not looked at before they are needed.
    """

    def __init__(self, json_path: Path | str, picture_folder: Path | str) -> None:
        self.path, self.folder = Path(json_path), Path(picture_folder)
        if not self.folder.is_dir():
            raise BadInput(f"there is no folder {self.folder}; give the folder that the records' image paths start from")
        lines = [json.dumps(record).encode() for record in _records(self.path)]
        # One block of bytes: a list of dicts would be copied, page by page, into every worker process of a loader that touches it.
        self._ends = np.cumsum([0, *map(len, lines)])
        self._lines = b"".join(lines)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> TrainingExample | Malformed:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no record {index}; {self.path} holds {len(self)}")
        record = json.loads(self._lines[self._ends[index] : self._ends[index + 1]])
        named = record.get("image", record.get("images"))
        names = [named] if isinstance(named, str) else (named or [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return Malformed(str(record.get("id", index)), f"image is {str(named)[:60]!r}; expected a path, or a list of paths")
        return example_of(record.get("id"), record.get("conversations"), tuple(self.folder / name for name in names))


def _records(path: Path) -> list[dict[str, Any]]:
    expected = "a list of records {id, image, conversations}; a file of one record a line must end in .jsonl"
    try:
        text = path.read_text(encoding="utf-8")
        records = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else json.loads(text)
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); expected {expected}") from error
    if not isinstance(records, list) or not records or not all(isinstance(record, dict) for record in records):
        raise BadInput(f"{path} holds no records; expected {expected}")
    return records


class WorldExamples(Dataset[TrainingExample]):
    """A world's pictures as examples, each question a conversation of its own. For pictures of one size `collate.Collator` is faster."""

    def __init__(self, examples: ExampleSet) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> TrainingExample:
        asked = self.examples.questions[index]
        conversations = tuple(
            (
                {"role": "user", "content": [IMAGE, text_part(item.question)]},
                {"role": "assistant", "content": [text_part(item.answer)]},
            )
            for item in asked
        )
        return TrainingExample(self.examples.key(index), (Image.fromarray(self.examples.pictures[index]),), conversations)
