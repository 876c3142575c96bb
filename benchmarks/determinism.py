"""Whether the same command writes the same bytes: every command twice with one thread, twice with two, and one against the other.

    python benchmarks/determinism.py [--study] [--json]

Each pass runs the commands of `COMMANDS` with the same seeds into a folder of its own: a world, a short tour (training, surveys, page), a
survey of pairs from files, a page, blind pairs, an exported manifest; with `--study` also a quick study (minutes). What states times and
the machine (`VARIES`) is left out. With another number of threads sums run in another order: the table gives the files that differ and, of
records, the largest difference of a number.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Times, hosts and paths, by definition other in every run; a survey's own page states its time.
RUN = "run.json"
VARIES = (RUN, "report.html", "progress.json", "log.jsonl", "costs.json")
MODEL = "tour/agree/model"
COMMANDS: Mapping[str, tuple[str, ...]] = {
    "world": ("world", "shapes", "--out", "world", "--pictures", "60", "--scenes", "8", "--strength", "0.8", "--seed", "3"),
    "train, survey, report (tour)": ("tour", "--short", "--out", "tour"),
    "survey of pairs": ("survey", MODEL, "--pairs", "world/manifest.jsonl", "--out", "survey"),
    "report": ("report", "survey", "--out", "page.html"),
    "blind": ("blind", "world/pictures", "--same", "conv", "--different", "lite0", "--low", "0.99", "--high", "0.5", "--out", "blind",
              "--vectors", "vectors"),
    "manifest": ("manifest", "export", "world/manifest.jsonl", "--as", "vlmevalkit", "--out", "manifest"),
}  # fmt: skip
STUDY = ("study", "flip", "--quick", "--out", "study")


def run_all(home: Path, threads: int, commands: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """Runs the commands in a folder; for each, the SHA-256 of the files that it added, by path. Raises `RuntimeError` if one fails."""
    home.mkdir(parents=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    before: dict[str, str] = {}
    added = {}
    for name, arguments in commands.items():
        command = [sys.executable, "-m", "theodolite", *arguments]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
        for path in home.rglob(RUN):
            path.unlink()  # so that a page of the survey states no time, and can be compared
        after = hashes(home)
        added[name] = {path: digest for path, digest in after.items() if before.get(path) != digest}
        before = after
    return added


def hashes(home: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but those that vary, by path."""
    files = sorted(path for path in home.rglob("*") if path.is_file() and path.name not in VARIES)
    return {path.relative_to(home).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def different(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """The paths whose files differ, or that only one has."""
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def largest_difference(one: Path, other: Path) -> float | None:
    """The largest difference between two numbers at the same place of two JSON files; None if anything else differs."""
    gaps = list(_gaps(json.loads(one.read_text(encoding="utf-8")), json.loads(other.read_text(encoding="utf-8"))))
    return None if None in gaps else max((gap for gap in gaps if gap is not None), default=0.0)


def _gaps(one: Any, other: Any) -> Iterator[float | None]:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for name in one:
            if not name.endswith("sha256"):  # of what differs anyway
                yield from _gaps(one[name], other[name])
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for pair in zip(one, other, strict=True):
            yield from _gaps(*pair)
    elif isinstance(one, float | int) and isinstance(other, float | int):
        yield abs(one - other)
    elif one != other:
        yield None


def measure(scratch: Path, commands: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """For each command, its number of files and those that differ between passes."""
    passes = {}
    for name, threads in (("one", 1), ("one again", 1), ("two", 2), ("two again", 2)):
        passes[name] = run_all(scratch / name, threads, commands)
        print(f"{name}: done", file=sys.stderr, flush=True)
    rows = []
    for command in commands:
        between = different(passes["one"][command], passes["two"][command])
        records = [path for path in between if path.endswith(".json") and (scratch / "two" / path).is_file()]
        rows.append(
            {
                "command": command,
                "files": len(passes["one"][command]),
                "one_thread": different(passes["one"][command], passes["one again"][command]),
                "two_threads": different(passes["two"][command], passes["two again"][command]),
                "one_against_two": between,
                "largest_difference": {path: largest_difference(scratch / "one" / path, scratch / "two" / path) for path in records},
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--study", action="store_true", help="run a quick study too (minutes)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        rows = measure(Path(scratch), {**COMMANDS, "study": STUDY} if given.study else COMMANDS)
    if given.json:
        print(json.dumps(rows, indent=1))
    for row in () if given.json else rows:
        same = ", ".join(
            f"{name.replace('_', ' ')}: {len(row[name]) or 'none'} differ" for name in ("one_thread", "two_threads", "one_against_two")
        )
        print(f"{row['command']}, {row['files']} files: {same}")
    if any(row["one_thread"] or row["two_threads"] for row in rows):
        sys.exit("the same command with as many threads wrote other bytes")


if __name__ == "__main__":
    main()
