"""docs/reference/records.md: it is what the code says, it leaves nothing out, and it is what a survey writes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import polars as pl
import pytest
from pydantic import Field

from helpers import REPOSITORY
from helpers.survey_records import UNTRAINED
from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.measurement.survey.session import survey_model
from theodolite.records.described import FILES, PICTURES_FILE, ROWS_FILE, THUMBNAILS_FILE, in_words, parts_of, records_text, undescribed
from theodolite.records.part import Part, Rate
from theodolite.records.rows import ROWS
from theodolite.records.survey import Cell, RunRecord, Shadows, SurveyRecord
from theodolite.records.writing import run_record, write_survey

DOCUMENT = REPOSITORY / "docs" / "reference" / "records.md"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real survey of a tiny model."""
    model, processor = tiny_vlm()
    policy = "shape,shape=round,shape=round&colour=red"
    found = survey_model((model, processor), WORLD, policy=policy, title="tiny", num_scenes=4, thresholds=UNTRAINED)
    folder = tmp_path_factory.mktemp("survey")
    write_survey(folder, found.record, found.rows, found.pictures, run_record("survey", datetime.now(UTC), {"survey": 1.0}))
    return folder


def documented(heading: str) -> dict[str, tuple[str, str]]:
    """Type and meaning of each row of the table below a heading of the document."""
    section = re.split(r"^#+ ", DOCUMENT.read_text(), flags=re.MULTILINE)
    (text,) = [part for part in section if part.startswith(f"{heading}\n")]
    rows = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| `")]
    return {name.strip("`"): (kind, meaning) for name, kind, meaning in rows}


def test_the_document_is_the_text_that_the_code_gives() -> None:
    assert DOCUMENT.read_text() == records_text(), "run python scripts/describe_records.py"


def test_every_part_and_every_field_of_a_record_has_a_description() -> None:
    assert undescribed(FILES.values()) == []
    assert {SurveyRecord, RunRecord, Shadows, Cell, Rate} <= set(parts_of(FILES.values()))


def test_every_part_that_records_hold_has_one_section_and_every_link_finds_it() -> None:
    text = DOCUMENT.read_text()
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    assert len(headings) == len(set(headings))
    nested = {model.__name__ for model in parts_of(FILES.values())} - {root.__name__ for root in FILES.values()}
    assert set(headings) == {"Records", *FILES, ROWS_FILE, PICTURES_FILE, THUMBNAILS_FILE, *nested}
    assert {target for _, target in re.findall(r"\[(\w+)\]\(#(\w+)\)", text)} == {name.lower() for name in nested}


def test_the_columns_that_a_survey_writes_are_the_documented_ones_in_order(written: Path) -> None:
    schema = pl.read_parquet(written / ROWS_FILE).schema
    assert list(schema.items()) == [(name, column.dtype) for name, column in ROWS.items()]
    assert {name: f"`{dtype}`" for name, dtype in schema.items()} == {name: kind for name, (kind, _) in documented(ROWS_FILE).items()}
    assert all(column.meaning for column in ROWS.values())


def test_what_is_said_of_the_rows_holds_of_those_that_a_survey_writes(written: Path) -> None:
    rows = pl.read_parquet(written / ROWS_FILE)
    assert set(rows["kind"]) == {"intervention", "nuisance", "paraphrase", "training"}
    assert all(f"{kind}:" in ROWS["kind"].meaning for kind in set(rows["kind"]))
    assert set(rows["form"]) == {"open", "yes_no", "conjunction"}
    other = rows.filter(pl.col("kind") != "intervention")
    assert set(other["factor"]) == {""} and other["value_before"].null_count() == len(other)
    reworded = rows.filter(pl.col("question_before") != pl.col("question_after"))
    assert set(reworded["kind"]) == {"paraphrase"}
    for side in ("before", "after"):
        found = rows.select(f"answer_{side}", "choices", most=pl.col(f"probabilities_{side}").list.arg_max())
        assert all(row["choices"][row["most"]] == row[f"answer_{side}"] for row in found.iter_rows(named=True))
        assert rows[f"probabilities_{side}"].list.sum().to_list() == pytest.approx([1.0] * len(rows))
        assert rows[f"outside_{side}"].is_between(0, 1).all()


@pytest.mark.parametrize("name", ["survey.json", "run.json"])
def test_the_fields_of_a_file_are_those_of_its_section_and_of_the_sections_it_links_to(written: Path, name: str) -> None:
    checked: set[str] = set()

    def check(heading: str, found: dict[str, Any]) -> None:
        fields = documented(heading)
        assert list(found) == list(fields), heading
        checked.add(heading)
        for field, (kind, _) in fields.items():
            parts = re.findall(r"\[(\w+)\]", kind)
            held = found[field]
            several = held if isinstance(held, list) else list(held.values()) if kind.startswith("map") else [held]
            for item in several if parts else ():
                if item is not None:  # of several kinds of part it is one
                    check(next((part for part in parts if list(documented(part)) == list(item)), parts[0]), item)

    check(name, json.loads((written / name).read_text()))
    assert name in checked
    assert name == "run.json" or checked >= {"Coverage", "Cell", "Noise", "Competence", "Evidence", "Rate", "Example", "WorldConfig"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (float, "number"),
        (float | None, "number, or null"),
        (Literal["a", "b", 3], '`"a"`, `"b"` or `3`'),
        (tuple[int, ...], "list of whole numbers"),
        (tuple[tuple[int, float | None], ...], "list of lists (whole number, (number or null))"),
        (dict[str, tuple[float, ...]] | None, "map from text to list of numbers, or null"),
        (dict[Literal["a", "b"], bool], 'map from (`"a"` or `"b"`) to true or false'),
        (tuple[Rate | Cell, ...], "list of ([Rate](#rate) or [Cell](#cell))"),
        (Annotated[Rate | Cell, Field(discriminator="kind")] | None, "[Rate](#rate) or [Cell](#cell), or null"),
        (dict[str, object], "map from text to anything"),
    ],
)
def test_types_in_plain_words(kind: Any, words: str) -> None:
    assert in_words(kind) == words


def test_a_type_without_words_is_refused() -> None:
    with pytest.raises(TypeError, match="no plain words"):
        in_words(tuple[complex, ...])


def test_what_lacks_a_description_is_named_however_deep_it_lies() -> None:
    class Bare(Part):
        told: int = Field(description="told")
        untold: int

    class Whole(Part):
        """Has one."""

        parts: dict[str, tuple[Bare | None, ...]] = Field(description="bare parts")

    assert undescribed([Whole]) == ["Bare", "Bare.untold"]
