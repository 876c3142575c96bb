"""Readers of question benchmarks: MMVP and NaturalBench (docs/reference/manifest.md lists what was checked)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from theodolite.records.errors import BadInput
from theodolite.records.parquet import BadParquet, check_parquet
from theodolite.records.reading import read_text
from theodolite.worlds.benchmarks.pairs import Content, ConvertedRow, Records, SkippedRecord, extension, form_of, json_list, one_of, within

MMVP_COLUMNS = ("Index", "Question", "Options", "Correct Answer")
OPTION = re.compile(r"\(([a-z])\)\s*(.*?)\s*(?=\([a-z]\)|$)", re.IGNORECASE | re.DOTALL)
GROUP_KEYS = (
    "Index", "Image_0", "Image_1", "Question_0", "Question_1",
    "Image_0_Question_0", "Image_1_Question_0", "Image_0_Question_1", "Image_1_Question_1",
)  # fmt: skip
GROUP_CHOICES = {"yes_no": ("Yes", "No"), "multiple_choice": ("A", "B")}
GROUPS_AT_ONCE = 32  # rows of Parquet in memory; each holds two pictures


def read_mmvp(source: Path) -> Records:
    """MMVP: `Questions.csv` and `MMVP Images/1.jpg` ...; pictures 1 and 2, 3 and 4 ... are pairs with one question."""
    path = one_of(source, ("Questions.csv",), "MMVP")
    images = one_of(source, ("MMVP Images",), "MMVP")
    pairs: dict[int, list[Mapping[str, str]]] = {}
    for where, line in _csv_lines(path, MMVP_COLUMNS):
        index = line["Index"].strip()
        if re.fullmatch("[0-9]{1,9}", index):
            pairs.setdefault((int(index) + 1) // 2, []).append(line)
        else:
            yield SkippedRecord(f"{where}: Index is {index[:40]!r}, which is not a number")
    for number, lines in pairs.items():
        yield _mmvp_pair(path, images, number, sorted(lines, key=lambda line: int(line["Index"])))


def _csv_lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Place and cells by column of every record of a CSV file; cells may hold line ends, and missing ones are blank. Raises `BadInput`."""
    table = csv.DictReader(io.StringIO(read_text(path)), strict=True)
    try:
        names = [name.strip() for name in table.fieldnames or ()]
        if missing := [name for name in columns if name not in names]:
            raise BadInput(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(names)[:200] or 'none'}")
        for record in table:
            yield f"{path}, line {table.line_num}", {name.strip(): cell or "" for name, cell in record.items() if name is not None}
    except csv.Error as error:
        raise BadInput(f"{path}, line {table.line_num}, is not CSV ({error}); download it again from its authors") from error


def _mmvp_pair(path: Path, images: Path, number: int, lines: list[Mapping[str, str]]) -> ConvertedRow | SkippedRecord:
    where = f"{path}, rows {2 * number - 1} and {2 * number}"
    if [int(line["Index"]) for line in lines] != [2 * number - 1, 2 * number]:
        return SkippedRecord(f"{where}: a pair needs both rows, each once")
    options = [{letter.lower(): " ".join(text.split()) for letter, text in OPTION.findall(line["Options"])} for line in lines]
    questions = [" ".join(line["Question"].split()) for line in lines]
    if questions[0] != questions[1] or set(options[0].values()) != set(options[1].values()):
        return SkippedRecord(f"{where}: the two questions or their options differ")
    answers = [texts.get(line["Correct Answer"].strip(" ().\n").lower()) for line, texts in zip(lines, options, strict=True)]
    if None in answers:
        return SkippedRecord(f"{where}: a correct answer is not one of the options")
    choices = list(options[0].values())
    names = [f"pictures/{line['Index'].strip()}.jpg" for line in lines]
    row = {
        "id": f"mmvp-{number}",
        "scene": number,
        "factor": "pattern",
        "from": answers[0],
        "to": answers[1],
        "picture": names[0],
        "edited": names[1],
        "question": questions[0],
        "choices": choices,
        "answer_before": answers[0],
        "answer_after": answers[1],
        "form": form_of(choices),
        "kind": "matched",
    }
    return ConvertedRow(row, {name: within(images, name) for name in names})


def read_naturalbench(source: Path) -> Records:
    """NaturalBench: Parquet shards of the Hugging Face data set, or a `.json` list with the same keys, where images are relative paths.

    A group of two pictures and two questions gives two rows of one scene: both pictures with each question.
    """
    for where, group in _groups(source):
        kind = group.get("Question_Type", group.get("Question Type"))
        if missing := [key for key in GROUP_KEYS if group.get(key) is None]:
            yield SkippedRecord(f"{where}: lacks {', '.join(missing)}")
        elif not re.fullmatch(r"[\w-]+", str(group["Index"])):
            yield SkippedRecord(f"{where}: Index is {group['Index']!r}, which cannot be part of a file name")
        elif not isinstance(kind, str) or kind not in GROUP_CHOICES:
            yield SkippedRecord(f"{where}: Question_Type is {kind!r}; known are {', '.join(GROUP_CHOICES)}")
        else:
            yield from _group_rows(source, where, group, GROUP_CHOICES[kind])


def _groups(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not source.is_dir():
        raise BadInput(f"{source} is not a folder; give the folder of NaturalBench")
    shards = sorted((*source.glob("*.parquet"), *source.glob("data/*.parquet")))
    for shard in shards:
        try:
            check_parquet(shard)
            table = pl.scan_parquet(shard)
            for start in range(0, table.select(pl.len()).collect().item(), GROUPS_AT_ONCE):
                rows = table.slice(start, GROUPS_AT_ONCE).collect()
                yield from ((f"{shard}, row {start + k}", row) for k, row in enumerate(rows.iter_rows(named=True), start=1))
        except (OSError, BadParquet, pl.exceptions.PolarsError) as error:
            raise BadInput(f"{shard} cannot be read as Parquet ({error}); download it again from its authors") from error
    lists = [] if shards else sorted(source.glob("*.json"))
    if not shards and not lists:
        raise BadInput(f"{source} holds no .parquet, no data/*.parquet and no .json; give the folder of NaturalBench")
    for path in lists:
        groups = json_list(path, f"the keys {', '.join(GROUP_KEYS)}")
        yield from ((f"{path}, group {number}", group) for number, group in enumerate(groups, start=1))


def _group_rows(source: Path, where: str, group: Mapping[str, Any], choices: tuple[str, ...]) -> Records:
    pictures: dict[str, Content] = {}
    for side in (0, 1):
        content = _content(source, group[f"Image_{side}"])
        if content is None:
            yield SkippedRecord(f"{where}: Image_{side} is neither a picture nor the path of one")
            return
        ending = extension(content) if isinstance(content, bytes) else content.suffix.lstrip(".").lower() or "png"
        pictures[f"pictures/{group['Index']}_{side}.{ending}"] = content
    before, after = pictures
    for number in (0, 1):
        answers = [_matching_choice(str(group[f"Image_{side}_Question_{number}"]), choices) for side in (0, 1)]
        row = {
            "id": f"naturalbench-{group['Index']}-{number}",
            "scene": group["Index"],
            "factor": "content",
            "from": answers[0],
            "to": answers[1],
            "picture": before,
            "edited": after,
            "question": group[f"Question_{number}"],
            "choices": list(choices),
            "answer_before": answers[0],
            "answer_after": answers[1],
            "form": form_of(choices),
            "kind": "matched",
        }
        yield ConvertedRow(row, pictures)


def _matching_choice(answer: str, choices: tuple[str, ...]) -> str:
    """The choice that equals an answer up to case and full stop; the answer itself if none does."""
    return next((choice for choice in choices if choice.lower() == answer.strip(" .").lower()), answer)


def _content(source: Path, image: object) -> Content | None:
    """Content of a Hugging Face image ({bytes, path}) or of a path relative to `source`; None for a path outside it."""
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    try:
        inside = isinstance(image, str) and (source / image).resolve().is_relative_to(source.resolve())
    except (OSError, ValueError):  # a zero byte, a circle of links
        inside = False
    return source / str(image) if inside else None
