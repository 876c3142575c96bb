"""Examples from Hugging Face data sets, in memory or streamed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image
from torch.utils.data import Dataset, IterableDataset

from theodolite.data.conversations import BadConversation
from theodolite.data.epochs import Source, Stream
from theodolite.data.sources import Malformed, Picture, TrainingExample, example_of, name_of, picture_below
from theodolite.records.errors import BadInput

TEXT_COLUMNS = ("messages", "conversations", "texts")
PICTURE_COLUMNS = ("images", "image")
KEY_COLUMNS = ("id",)
# Rows read to check the format of a data set.
NUM_PROBED = 8


@dataclass(frozen=True)
class Columns:
    """Names of the columns of the conversation, the pictures (None: text only) and the key (None: a hash of the content)."""

    text: str
    pictures: str | None
    key: str | None
    folder: Path | None

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
    """The rows of a `datasets.Dataset` as examples. Pictures stay encoded until a sample is made."""

    def __init__(self, dataset: Any, columns: Columns) -> None:
        self.columns = columns
        self._texts = dataset.select_columns([name for name in columns.names if name != columns.pictures])
        # Arrow rows hold the stored bytes, so a broken picture drops one example instead of raising here.
        self._pictures = None if columns.pictures is None else dataset.select_columns(columns.pictures).with_format("arrow")

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> TrainingExample | Malformed:
        pictures = {} if self._pictures is None else self._pictures[index].to_pylist()[0]
        return self.columns.example({**self._texts[index], **pictures})


class DatasetStream(IterableDataset[TrainingExample | Malformed]):
    """The rows of a `datasets.IterableDataset` as examples, once per pass. Each worker process of a loader reads its own shards.

    Training processes split a stream by batches (accelerate's `IterableDatasetShard`): each reads all rows, and decodes only the pictures
    of its own batches.
    """

    def __init__(self, dataset: Any, columns: Columns) -> None:
        chosen = dataset.select_columns(columns.names)
        self.dataset = chosen if chosen.features is None else chosen.decode(False)
        self.columns = columns

    def __iter__(self) -> Iterator[TrainingExample | Malformed]:
        for row in self.dataset:
            yield self.columns.example(row)

    def set_epoch(self, epoch: int) -> None:
        """Reshuffles the stream, if it is shuffled."""
        self.dataset.set_epoch(epoch)


def from_datasets(
    dataset: Any,
    *,
    text: str | None = None,
    pictures: str | None = None,
    key: str | None = None,
    text_only: bool = False,
    picture_folder: Path | str | None = None,
) -> Dataset[TrainingExample | Malformed]:
    """Examples of a `datasets.Dataset` (`DatasetExamples`), or of an `IterableDataset` (`DatasetStream`).

    The conversation is a list of {role, content}, {from, value} or {user, assistant}, in the column `text` (default: messages,
    conversations or texts). The column `pictures` (default: images or image) holds one picture or a list, as pictures, bytes, or paths:
    below `picture_folder` if one is given, which they may not leave, else as they are. The column `key` (default: id, else a hash of
    the content) identifies the example. Raises `BadInput` if a column is missing, with those present, or if none of the first rows is a
    conversation.
    """
    import datasets

    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset):
        raise BadInput(f"a {type(dataset).__name__} was given; expected a Dataset or an IterableDataset (choose one of several splits)")
    if text_only and pictures is not None:
        raise BadInput(f"pictures is the column {pictures!r}, but text_only is set; leave one of them out")
    names = _columns_of(dataset)
    columns = Columns(
        text=_column("text", text, TEXT_COLUMNS, names),
        pictures=None if text_only else _column("pictures", pictures, PICTURE_COLUMNS, names),
        key=_column("key", key, KEY_COLUMNS, names) if key is not None or set(KEY_COLUMNS) & set(names) else None,
        folder=None if picture_folder is None else Path(picture_folder),
    )
    if isinstance(dataset, datasets.IterableDataset):
        stream = DatasetStream(dataset, columns)
        _refuse_non_examples(list(islice(stream, NUM_PROBED)), names)
        return stream
    examples = DatasetExamples(dataset, columns)
    _refuse_non_examples([examples[index] for index in range(min(NUM_PROBED, len(examples)))], names)
    return examples


def as_source(dataset: Any) -> Source | Stream:
    """The examples of a trainer's data set: a source or stream of examples as it is, a Hugging Face data set through `from_datasets`.

    Raises `BadInput`, with the line of code that makes examples, for a Hugging Face data set whose columns have other names, for rows that
    are no `TrainingExample`, and for what is neither indexed nor a `Stream`.
    """
    if _is_hugging_face(dataset):
        try:
            examples: Any = from_datasets(dataset)
        except BadInput as error:
            line = "from theodolite.data.tables import from_datasets; train_dataset = from_datasets(dataset, text=..., pictures=...)"
            raise BadInput(f"the train_dataset does not show by itself which columns to train on ({error}). Give them: {line}") from error
        return examples  # type: ignore[no-any-return]
    if isinstance(dataset, Stream):
        return dataset
    if not isinstance(dataset, Source):
        raise BadInput(
            f"train_dataset is a {type(dataset).__name__}; expected a LlavaJson, a Hugging Face data set, a list of TrainingExample, or "
            "an iterable of them with set_epoch(epoch)"
        )
    first = dataset[0] if len(dataset) else None
    if isinstance(first, Mapping):
        line = "train_dataset = from_datasets(datasets.Dataset.from_list(rows))"
        raise BadInput(f"train_dataset holds rows of {', '.join(map(str, first))}; expected TrainingExample. Make them: {line}")
    return dataset


def _is_hugging_face(dataset: Any) -> bool:
    """Whether it is of the library `datasets` (a data set, a stream, or several splits). Does not import the library."""
    library = sys.modules.get("datasets")
    if library is None:
        return False
    return isinstance(dataset, library.Dataset | library.IterableDataset | library.DatasetDict | library.IterableDatasetDict)


def _columns_of(dataset: Any) -> list[str]:
    """Names of the columns; those of the first row, if a stream does not list them."""
    if dataset.column_names is not None:
        return list(dataset.column_names)
    return [name for row in islice(dataset, 1) for name in row]


def _column(parameter: str, requested: str | None, defaults: tuple[str, ...], names: list[str]) -> str:
    """The requested column, or the first of the default names in the data set."""
    candidates = [name for name in ((requested,) if requested is not None else defaults) if name in names]
    if not candidates:
        problem = f"there is no column {requested!r}" if requested is not None else f"no column is called {' or '.join(defaults)}"
        hint = ", or set text_only" if parameter == "pictures" else ""
        raise BadInput(f"{problem}; the data set has {', '.join(names) or 'no columns'}: name one with {parameter}={hint}")
    return candidates[0]


def _refuse_non_examples(probes: list[TrainingExample | Malformed], names: list[str]) -> None:
    """Raises `BadInput` if none of the first rows is an example."""
    problems = [probe.problem for probe in probes if isinstance(probe, Malformed)]
    if len(problems) == len(probes):
        first = problems[0] if problems else "the data set is empty"
        raise BadInput(f"none of the first {len(probes)} rows is a conversation ({first}); the data set has the columns {', '.join(names)}")


def _pictures(value: Any, folder: Path | None) -> tuple[Picture, ...]:
    """A row's pictures, unopened. Raises `BadConversation` for a value of another type."""
    values = [] if value is None else value if isinstance(value, list | tuple) else [value]
    return tuple(_picture(one, folder) for one in values)


def _picture(value: Any, folder: Path | None) -> Picture:
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if isinstance(path, str) and not data:
            return (folder or Path()) / path  # of a typed column of pictures: the library has set it
        value = data
    if isinstance(value, bytes | Image.Image):
        return value
    if isinstance(value, str):
        return Path(value) if folder is None else picture_below(folder, value)
    raise BadConversation(f"a picture is a {type(value).__name__}; expected a picture, its bytes, or a path")
