"""What all exports of a pair set share: its questions as rows with the bytes of their pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError

from theodolite.asking.prompts import write_prompt
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.items import PairItem, change_of, picture_name
from theodolite.measurement.pairs.perturb import CHANGES
from theodolite.measurement.pairs.plan import Plan
from theodolite.records.asking import PromptStyle
from theodolite.records.writing import png_bytes
from theodolite.worlds.decoding import strict_pillow
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.manifest.images import locate

TEMPLATES = Path(__file__).parent / "templates"
NUM_ROWS = 64  # of a batch that is written at once: as many pictures are in memory


@dataclass(frozen=True, eq=False)
class PairSet:
    """The pairs to export: the folder of the pictures, their gallery, the plan with its noise, its questions, and the prompts' style."""

    folder: Path
    gallery: Gallery
    plan: Plan
    items: tuple[PairItem, ...]
    prompt: PromptStyle

    @property
    def task(self) -> str:
        """The set's name in lower-case letters, digits and underscores."""
        return "theodolite_" + (re.sub(r"[^a-z0-9]+", "_", self.gallery.name.casefold()).strip("_") or "pairs")

    @property
    def pictures(self) -> FilePictures:
        pictures = self.plan.pictures
        assert isinstance(pictures, FilePictures)
        return pictures

    @property
    def num_pictures(self) -> int:
        """Number of pictures of the items; files of equal bytes are one."""
        return len({item.picture for item in self.items})

    def rows(self) -> Iterator[dict[str, Any]]:
        """One row an item, its picture as a Hugging Face *Image*: bytes, and a name that keeps the file's ending."""
        at, content = -1, b""
        for item in self.items:
            if item.picture != at:
                at, content = item.picture, self.picture_bytes(item.picture)
            entry = self.pictures.entries[item.picture]
            yield {
                "id": item.id,
                "image": {"bytes": content, "path": None},
                "picture": picture_name(entry),
                "change": change_of(entry),
                "question": item.question,
                "choices": list(item.choices),
                "answer": item.truth,
                "prompt": write_prompt(self.prompt, item.question, item.choices).text,
                "prompt_style": self.prompt,
            }

    def picture_bytes(self, number: int) -> bytes:
        """A file of a picture with the pixels of a survey: the manifest's own file where plain Pillow reads these, else a PNG of them."""
        entry = self.pictures.entries[number]
        with strict_pillow():
            pixels = np.asarray(self.pictures.files.open(entry.name, None).image)
        if entry.change is not None:
            return png_bytes(CHANGES[entry.change](pixels))
        content = locate(self.folder, entry.name).read_bytes()
        return content if _reads_as(content, pixels) else png_bytes(pixels)


def _reads_as(content: bytes, pixels: np.ndarray) -> bool:
    """Whether a file has these pixels for a tool that opens it with Pillow and converts it to RGB."""
    try:
        with Image.open(BytesIO(content)) as image:
            return np.array_equal(np.asarray(image.convert("RGB")), pixels)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return False


def write_items(pairs: PairSet, path: Path) -> None:
    """Writes the items as Parquet with the schema of `datasets`, so that it loads pictures as pictures."""
    import datasets

    text = datasets.Value("string")
    names = ("id", "picture", "change", "question", "answer", "prompt", "prompt_style")
    features = datasets.Features({"image": datasets.Image(), "choices": datasets.List(text), **dict.fromkeys(names, text)})
    write_parquet(path, features.arrow_schema, pairs.rows())


def write_parquet(path: Path, schema: pa.Schema, rows: Iterator[Mapping[str, Any]]) -> None:
    """Writes rows in batches, of which one is in memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(path, schema) as writer:
        while batch := [dict(row) for row in islice(rows, NUM_ROWS)]:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def rendered(template: str, **values: Any) -> str:
    """The text of a template of this package."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string((TEMPLATES / template).read_text(encoding="utf-8")).render(**values)
