"""Surveys as found on disk: the record, how it was run, and the pictures that its examples name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from theodolite.records.survey import BadRecord, RunRecord, SurveyRecord, read_survey

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True, eq=False)
class StoredSurvey:
    """One survey; `pictures` holds PNG bytes by the name an example gives, and lacks those that are not there."""

    record: SurveyRecord
    run: RunRecord | None = None
    pictures: Mapping[str, bytes] | None = None

    def picture(self, name: str) -> bytes | None:
        return (self.pictures or {}).get(name)


class CoverageFacts(BaseModel):
    """What a record says of coverage, as far as the page shows it; maps are keyed by factor, proxies by "factor->query"."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    coverage: dict[str, float] = {}
    coverage_limit: dict[str, float] = {}
    reach: dict[str, float] = {}
    pressure_bits: dict[str, float] = {}
    proxy_bits: dict[str, float] = {}
    cause: dict[str, str] = {}
    agreement_frac: float | None = None

    def largest_proxy_bits(self, factor: str, about: str) -> float | None:
        """The most that a factor tells of the answer to any one query about `about`, in bits; null if nothing asked is about it."""
        found = [
            bits
            for key, bits in self.proxy_bits.items()
            for source, _, query in [key.partition("->")]
            if source == factor and _about(query) == about
        ]
        return max(found, default=None)


def _about(query: str) -> str:
    """The factor that a query's name asks about: "shape!=round" asks about shape."""
    parts = [part.partition("=")[0].removesuffix("!") for part in query.split("&")]
    return "&".join(parts)


def read_stored(folder: Path) -> StoredSurvey:
    """The survey in a record's folder (or its survey.json). Raises `BadRecord` on a survey or run that cannot be understood."""
    record = read_survey(folder)
    home = folder if folder.is_dir() else folder.parent
    names = {name for example in record.examples for name in (example.picture_before, example.picture_after)}
    found = {name: _read_picture(home, name) for name in sorted(names)}
    pictures = {name: data for name, data in found.items() if data is not None}
    return StoredSurvey(record, read_run(home / "run.json"), pictures)


def coverage_facts(record: SurveyRecord) -> CoverageFacts | None:
    """The record's coverage, or null where it has none. Raises `BadRecord` if it cannot be understood."""
    if record.coverage is None:
        return None
    try:
        return CoverageFacts.model_validate(record.coverage, from_attributes=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise BadRecord(f"coverage of {record.title!r}: {where}: {first['msg']}; survey the model again") from error


def read_run(path: Path) -> RunRecord | None:
    """How a record came to be, from its run.json; null if there is none. Raises `BadRecord` if it cannot be understood."""
    if not path.is_file():
        return None
    try:
        return RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BadRecord(f"{path} is no run record: {where}: {first['msg']}; remove it, or survey the model again") from error


def _read_picture(home: Path, name: str) -> bytes | None:
    """A PNG file by its name in the record. A name that leads out of the record's folder is not followed."""
    path = (home / name).resolve()
    if not path.is_relative_to(home.resolve()) or not path.is_file():
        return None
    data = path.read_bytes()
    return data if data.startswith(PNG_SIGNATURE) else None
