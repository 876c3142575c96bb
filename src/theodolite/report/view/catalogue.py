"""All surveys below a folder: what a list shows of each, and the records that cannot be read."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from theodolite.records.errors import BadInput
from theodolite.records.survey import BadRecord, ModelConfig, Verdict, read_survey
from theodolite.report.stored import read_run
from theodolite.report.survey.findings import RANK
from theodolite.report.words import WORD, pair_set_name, show_count

SURVEY_FILE, RUN_FILE, ROWS_FILE = "survey.json", "run.json", "rows.parquet"
READ_SUFFIXES = (".json", ".parquet")  # of the files that pages are made from
Sort = Literal["name", "title", "model", "pairs", "date", "scenes"]
Stamp = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Run:
    """One survey: `name` is its folder below the catalogue's, `started` ISO 8601 or empty, `verdicts` how many factors have each, worst
    first; `stamp` changes when one of its files does."""

    name: str
    folder: Path
    stamp: Stamp
    title: str
    model: str
    pairs: str
    started: str
    num_scenes: int
    verdicts: tuple[tuple[Verdict, int], ...]
    has_rows: bool

    @property
    def searched(self) -> str:
        """The text that a search looks through, in lower case."""
        words = " ".join(WORD[verdict] for verdict, _ in self.verdicts)
        return f"{self.name} {self.title} {self.model} {self.pairs} {self.started} {words}".lower()


@dataclass(frozen=True)
class DamagedRun:
    """A folder whose record cannot be read, and why."""

    name: str
    reason: str


class Catalogue:
    """The surveys below a folder, read again when their files change.

    Links to other folders are not followed, and a record whose files are links out of the folder is damaged. Hidden folders are left out:
    they hold what is being written.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BadInput(f"{folder} is no folder; give one that holds surveys, such as runs")
        self.folder = folder.resolve()
        self._entries: dict[Path, tuple[Stamp, Run | DamagedRun]] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[Run | DamagedRun]:
        """Every survey, in the order of its name."""
        with self._lock:
            stamped = {home: _stamp(home) for home in self._homes()}
            self._entries = {home: (stamp, self._entry(home, stamp)) for home, stamp in stamped.items()}
            return [entry for _, entry in sorted(self._entries.values(), key=lambda each: each[1].name)]

    def find(self, name: str) -> Run:
        """The survey of this name. Raises `BadRecord` if there is none, or if its record cannot be read."""
        for entry in self.entries():
            if entry.name == name:
                if isinstance(entry, DamagedRun):
                    raise BadRecord(entry.reason)
                return entry
        raise BadRecord(f"no survey is called {name!r} here; the list of surveys has all of them")

    def _homes(self) -> Iterator[Path]:
        for home, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if SURVEY_FILE in files:
                yield Path(home)

    def _entry(self, home: Path, stamp: Stamp) -> Run | DamagedRun:
        known = self._entries.get(home)
        if known is not None and known[0] == stamp:
            return known[1]
        name = home.relative_to(self.folder).as_posix()
        for path in sorted(home.iterdir()):
            if path.suffix in READ_SUFFIXES and not path.resolve().is_relative_to(self.folder):
                return DamagedRun(name, f"{path.name} is a link that leads out of the folder; put the file itself there")
        try:
            return _read(home, name, stamp)
        except BadInput as error:
            return DamagedRun(name, str(error).replace(f"{self.folder}{os.sep}", ""))
        except OSError as error:
            return DamagedRun(name, f"its files cannot be read ({error.strerror or error})")


def _read(home: Path, name: str, stamp: Stamp) -> Run:
    """What a list shows of the survey in a folder. Raises `BadRecord` and `OSError`."""
    record, run = read_survey(home), read_run(home / RUN_FILE)
    model = record.model
    counts = Counter(record.shadows.verdicts.values())
    return Run(
        name=name,
        folder=home,
        stamp=stamp,
        title=record.title,
        model=f"{model.family}, {show_count(model.num_parameters)} parameters" if isinstance(model, ModelConfig) else model.name,
        pairs=pair_set_name(record),
        started="" if run is None else run.started,
        num_scenes=record.num_scenes,
        verdicts=tuple((verdict, counts[verdict]) for verdict in sorted(counts, key=RANK.__getitem__)),
        has_rows=(home / ROWS_FILE).is_file(),
    )


def searched(runs: Sequence[Run], words: str) -> list[Run]:
    """The runs whose texts hold all of these words, in any order, case ignored."""
    wanted = words.lower().split()
    return [run for run in runs if all(word in run.searched for word in wanted)]


def ordered(runs: Sequence[Run], sort: str, *, descending: bool) -> list[Run]:
    """The runs in the order of one column, then of their names. Raises `BadInput` for what is no column."""
    if sort not in get_args(Sort):
        raise BadInput(f"runs cannot be sorted by {sort!r}; they can by {', '.join(get_args(Sort))}")
    column = {"date": "started", "scenes": "num_scenes"}.get(sort, sort)

    def key(run: Run) -> Any:
        value = getattr(run, column)
        return value.lower() if isinstance(value, str) else value

    return sorted(sorted(runs, key=lambda run: run.name), key=key, reverse=descending)


def _stamp(home: Path) -> Stamp:
    """Time of the last change and size of each file of a survey, None of those that are missing."""
    return tuple(_file_stamp(home / name) for name in (SURVEY_FILE, RUN_FILE, ROWS_FILE))


def _file_stamp(path: Path) -> tuple[int, int] | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_size
