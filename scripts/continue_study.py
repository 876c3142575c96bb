"""Goes on with a study whose runs take longer than one sitting: finished runs that are not judged yet lie in docs/results/unfinished/NAME.

    python scripts/continue_study.py flip --workers 2

Runs the study's grid in runs/continued/NAME from all runs that are there, judged or not. When it ends, or Ctrl-C ends it, the new runs and
their rows are in docs/results/unfinished/NAME, to be committed. Once the grid is whole, `theodolite study` has judged it: then the folder
runs/continued/NAME replaces docs/results/NAME, and the unfinished one goes.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from theodolite.records.study import read_runs, write_runs
from theodolite.studies.engine.catalogue import STUDIES
from theodolite.studies.engine.kept_rows import kept_rows_path

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "docs" / "results"


def gather(name: str, results: Path, work: Path) -> None:
    """Puts the runs that are there, judged or not, into the folder of work, beside what it holds already."""
    judged, unfinished = results / name, results / "unfinished" / name
    runs = {**read_runs(judged), **read_runs(unfinished), **read_runs(work)}
    work.mkdir(parents=True, exist_ok=True)
    for folder in (judged, unfinished):
        if folder.is_dir():
            shutil.copytree(folder, work, dirs_exist_ok=True, ignore=lambda _, names: {"runs.jsonl"} & set(names))
    write_runs(work, list(runs.values()))


def keep(name: str, results: Path, work: Path) -> int:
    """Writes the runs of the folder of work that are not judged, with their rows, to the unfinished ones; gives their number."""
    unfinished = results / "unfinished" / name
    new = [run for key, run in read_runs(work).items() if key not in read_runs(results / name)]
    if not new:
        return 0
    unfinished.mkdir(parents=True, exist_ok=True)
    write_runs(unfinished, new)
    for run in new:
        if (rows := kept_rows_path(work, run.key)).is_file():
            target = kept_rows_path(unfinished, run.key)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(rows, target)
    return len(new)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=sorted(STUDIES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    work = REPOSITORY / "runs" / "continued" / given.name
    gather(given.name, RESULTS, work)
    command = [sys.executable, "-m", "theodolite", "study", given.name, "--seeds", str(given.seeds), "--out", str(work)]
    try:
        status = subprocess.run([*command, "--workers", str(given.workers)], check=False).returncode
    except KeyboardInterrupt:
        status = 130
    total = len(STUDIES[given.name].grid(range(given.seeds), False))
    print(
        f"{given.name}: {keep(given.name, RESULTS, work)} runs not judged yet, of {total} in all, in docs/results/unfinished/{given.name}"
    )
    return status


if __name__ == "__main__":
    raise SystemExit(main())
