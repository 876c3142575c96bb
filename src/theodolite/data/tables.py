"""Examples from Hugging Face data sets, whole or streamed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from theodolite.data.conversations import BadConversation
from theodolite.data.sources import Malformed, Picture, TrainingExample, example_of, name_of
from theodolite.records.errors import BadInput

TEXT_COLUMNS = ("messages", "conversations", "texts")
PICTURE_COLUMNS = ("images", "image")
KEY_COLUMNS = ("id",)
# So many rows are looked at to tell whether a data set is of a known form.
NUM_PROBED = 8


@dataclass(frozen=True)
class Columns:
    """Which column holds the conversation, the pictures (None: text only) and the key (None: the content names the example)."""

    text: str
    pictures: str | None
    key: str | None
    folder: Path

    @property
    def names(self) -> list[str]:
        return [name for name in (self.text, self.pictures, self.key) if name is not None]

    def example(self, row: Mapping[str, Any]) -> TrainingExample | Malformed:
        key = None if self.key is None else row[self.key]
        try:
            pictures = () if self.pictures is None else _pictures(row[self.pictures], self.folder)
        except BadConversation as error:
            return Malformed(name_of(key, row[self.text]), str(error))
        return example_of(key, row[self.text], pictures)


class DatasetExamples(Dataset[TrainingExample | Malformed]):
    """The rows of a `datasets.Dataset` as examples. Pictures are taken as they are stored: reading them is left to whoever needs them."""

    def __init__(self, dataset: Any, columns: Columns) -> None:
        self.columns = columns
        self._texts = dataset.select_columns([name for name in columns.names if name != columns.pictures])
        # In Arrow's form the stored bytes come undecoded, so that one broken picture is one example dropped.
        self._pictures = None if columns.pictures is None else dataset.select_columns(columns.pictures).with_format("arrow")

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> TrainingExample | Malformed:
        pictures = {} if self._pictures is None else self._pictures[index].to_pylist()[0]
        return self.columns.example({**self._texts[index], **pictures})


class DatasetStream(IterableDataset[TrainingExample | Malformed]):
    """The rows of a `datasets.IterableDataset` as examples, once a pass. In a loader's worker processes each reads its own shards.

    Several training processes share a stream by batches (accelerate's `IterableDatasetShard`): each reads all rows, and opens only the
    pictures of its own.
    """

    def __init__(self, dataset: Any, columns: Columns) -> None:
        chosen = dataset.select_columns(columns.names)
        self.dataset = chosen if chosen.features is None else chosen.decode(False)
        self.columns = columns

    def __iter__(self) -> Iterator[TrainingExample | Malformed]:
        for row in self.dataset:
            yield self.columns.example(row)

    def set_epoch(self, epoch: int) -> None:
        """Another order, where the stream is shuffled."""
        self.dataset.set_epoch(epoch)


def from_datasets(
    dataset: Any,
    *,
    text: str | None = None,
    pictures: str | None = None,
    key: str | None = None,
    text_only: bool = False,
    picture_folder: Path | str = ".",
) -> Dataset[TrainingExample | Malformed]:
    """Examples of a `datasets.Dataset` (`DatasetExamples`), or of an `IterableDataset` (`DatasetStream`).

    The conversation is a list of {role, content}, {from, value} or {user, assistant}, in the column `text` (else messages, conversations or
    texts); pictures stand in the column `pictures` (else images or image), one or a list, as pictures, bytes, or paths below
    `picture_folder`. The column `key` (else id) names the example; without one its content does. Raises `BadInput`, with the columns that
    there are, if these are not found, or if no row at the beginning is such a conversation.
    """
    import datasets

    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        raise BadInput(f"a {type(dataset).__name__} was given; expected a Dataset or an IterableDataset (of several splits, choose one)")
    if text_only and pictures is not None:
        raise BadInput(f"pictures are in the column {pictures!r}, and text_only is set; leave one of them out")
    found = _columns_of(dataset)
    columns = Columns(
        text=_chosen("text", text, TEXT_COLUMNS, found),
        pictures=None if text_only else _chosen("pictures", pictures, PICTURE_COLUMNS, found),
        key=_chosen("key", key, KEY_COLUMNS, found) if key is not None or set(KEY_COLUMNS) & set(found) else None,
        folder=Path(picture_folder),
    )
    if isinstance(dataset, datasets.IterableDataset):
        stream = DatasetStream(dataset, columns)
        _refuse_unknown(list(islice(stream, NUM_PROBED)), found)
        return stream
    examples = DatasetExamples(dataset, columns)
    _refuse_unknown([examples[index] for index in range(min(NUM_PROBED, len(examples)))], found)
    return examples


def _columns_of(dataset: Any) -> list[str]:
    """Names of the columns; of a stream that does not tell, those of its first row."""
    if dataset.column_names is not None:
        return list(dataset.column_names)
    return [name for row in islice(dataset, 1) for name in row]


def _chosen(parameter: str, named: str | None, known: tuple[str, ...], found: list[str]) -> str:
    """The column that was named, or the one that is known by its name."""
    candidates = [name for name in ((named,) if named is not None else known) if name in found]
    if not candidates:
        wanted = f"there is no column {named!r}" if named is not None else f"no column is called {' or '.join(known)}"
        hint = ", or set text_only" if parameter == "pictures" else ""
        raise BadInput(f"{wanted}; the data set has {', '.join(found) or 'no columns'}: name one with {parameter}={hint}")
    return candidates[0]


def _refuse_unknown(probes: list[TrainingExample | Malformed], found: list[str]) -> None:
    """Raises `BadInput` if none of the first rows is an example."""
    problems = [probe.problem for probe in probes if isinstance(probe, Malformed)]
    if len(problems) == len(probes):
        first = problems[0] if problems else "there are none"
        raise BadInput(f"none of the first {len(probes)} rows is a conversation ({first}); the data set has the columns {', '.join(found)}")


def _pictures(value: Any, folder: Path) -> tuple[Picture, ...]:
    """A row's pictures, unopened. Raises `BadConversation` on what is none."""
    values = [] if value is None else value if isinstance(value, list | tuple) else [value]
    return tuple(_picture(one, folder) for one in values)


def _picture(value: Any, folder: Path) -> Picture:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes | Image.Image):
        return value
    if isinstance(value, str | Path):
        return folder / value
    raise BadConversation(f"a picture is a {type(value).__name__}; expected a picture, its bytes, or a path")
