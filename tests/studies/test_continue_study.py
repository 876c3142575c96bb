"""The script that goes on with a long study: new runs land beside the judged ones, and never among them."""

from __future__ import annotations

import runpy
from pathlib import Path

from helpers import REPOSITORY
from theodolite.records.study import read_runs, write_runs
from theodolite.studies.engine.kept_rows import kept_rows_path

SCRIPT = REPOSITORY / "scripts" / "continue_study.py"


def test_runs_are_gathered_and_new_ones_are_written_beside_the_judged_ones(tmp_path: Path) -> None:
    names = runpy.run_path(str(SCRIPT))
    results, work = tmp_path / "results", tmp_path / "work"
    runs = list(read_runs(REPOSITORY / "docs" / "results" / "flip").values())[:5]
    judged, later = runs[:2], runs[2:]  # what is committed as unfinished grows, and goes in the end
    write_runs(results / "flip", judged)
    write_runs(results / "unfinished" / "flip", later[:1])
    rows = kept_rows_path(results / "unfinished" / "flip", later[0].key)
    rows.parent.mkdir()
    rows.write_bytes(b"rows of the first one")
    names["gather"]("flip", results, work)
    assert set(read_runs(work)) == {run.key for run in (*judged, later[0])}
    assert kept_rows_path(work, later[0].key).read_bytes() == rows.read_bytes()
    write_runs(work, [*judged, *later])  # what a study does as its runs finish
    assert names["keep"]("flip", results, work) == len(later) == 3
    assert set(read_runs(results / "unfinished" / "flip")) == {run.key for run in later}
    assert list(read_runs(results / "flip")) == [run.key for run in judged]
    names["gather"]("flip", results, work)
    assert len(read_runs(work)) == 5
