"""Surveys of many pairs of photographs: memory as pairs grow, bytes after kills at random moments, two workers against one process.

    OMP_NUM_THREADS=1 python benchmarks/survey_scale.py --json
    OMP_NUM_THREADS=1 python benchmarks/survey_scale.py --json --pairs 1000 10000 --megapixels 12

A tiny LLaVA with random weights is surveyed through the command line, in processes of their own, on manifests of matched pairs. The
picture files are hard links to a few JPEGs of noise over a gradient, so that a disk can hold many; each is read, hashed and decoded as any
other. Memory is the largest resident set of the survey's process. Kills come at moments drawn by `--seed`, uniform over the seconds of the
undisturbed survey.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from theodolite.models.construction.build import build_vlm
from theodolite.models.export import export_vlm

FILES = ("survey.json", "rows.parquet", "pictures.parquet")
NUM_JPEGS = 8
MEBIBYTE = 2**20


def jpegs(folder: Path, megapixels: float) -> list[Path]:
    """A few JPEG files of so many pixels, wide and tall by turns."""
    rng, paths = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    long, short = round((megapixels * 1e6 * 4 / 3) ** 0.5), round((megapixels * 1e6 * 3 / 4) ** 0.5)
    for number in range(NUM_JPEGS):
        width, height = (long, short) if number % 2 else (short, long)
        gradient = np.linspace(0, 160, width)[None, :, None] + np.linspace(0, 40, height)[:, None, None]
        colour = rng.integers(0, 40, (1, 1, 3))
        noise = rng.integers(0, 16, (height, width, 1))
        Image.fromarray((gradient + colour + noise).astype(np.uint8)).save(folder / f"{number}.jpg", quality=90)
        paths.append(folder / f"{number}.jpg")
    return paths


def manifest(folder: Path, sources: Sequence[Path], num_pairs: int) -> Path:
    """A manifest of so many pairs, each with two files of its own."""
    folder.mkdir(parents=True)
    rows = []
    for pair in range(num_pairs):
        names = [f"{pair:06d}-{side}.jpg" for side in range(2)]
        for side, name in enumerate(names):
            os.link(sources[(2 * pair + side) % len(sources)], folder / name)
        rows.append(
            {"scene": pair, "factor": "colour", "from": "red", "to": "blue", "picture": names[0], "edited": names[1],
             "question": "what colour", "choices": ["red", "blue"], "answer_before": "red", "answer_after": "blue",
             "query": "colour", "kind": "matched"}
        )  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def command(model: Path, pairs: Path, out: Path, *options: str, num_workers: int = 1) -> list[str]:
    """The survey's command line; several workers are processes of their own."""
    base = [sys.executable, "-m", "theodolite", "survey", str(model), "--pairs", str(pairs), "--noise", "given"]
    where = ["--device", "cpu"] if num_workers == 1 else ["--devices", ",".join(["cpu"] * num_workers)]
    return [*base, *where, "--out", str(out), *options]


def finished(arguments: list[str]) -> tuple[float, int]:
    """Seconds, and the largest resident set in bytes, of a survey that runs to its end. Raises `RuntimeError` if it fails."""
    before = time.monotonic()
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        errors = process.stderr.read() if process.stderr else ""
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended with {process.returncode}:\n{errors[-2000:]}")
    return time.monotonic() - before, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def killed(arguments: list[str], seconds: float, times: int, rng: random.Random) -> int:
    """Kills a survey so many times at moments uniform over `seconds`; the number of kills that met it running."""
    hits = 0
    for _ in range(times):
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                hits += 1
    return hits


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two surveys' records, rows and tables of pictures are equal to the byte."""
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in FILES)


def measure(scratch: Path, pairs: Sequence[int], megapixels: float, kills: int, seed: int, workers: bool) -> dict[str, Any]:
    """The benchmark's record, as JSON."""
    model, processor = build_vlm(("what colour", "red", "blue"), 0)
    export_vlm(model, processor, scratch / "model")
    sources = jpegs(scratch / "sources", megapixels)
    record: dict[str, Any] = {"megapixels": megapixels, "surveys": []}
    for number in sorted(pairs):
        given = manifest(scratch / f"pairs-{number}", sources, number)
        seconds, peak = finished(command(scratch / "model", given, scratch / f"whole-{number}"))
        record["surveys"].append({"pairs": number, "seconds": round(seconds, 1), "peak_mib": round(peak / MEBIBYTE, 1)})
        print(json.dumps(record["surveys"][-1]), file=sys.stderr, flush=True)  # a later failure does not cost it
    surveys = record["surveys"]
    record["peak_ratio"] = round(surveys[-1]["peak_mib"] / surveys[0]["peak_mib"], 3)
    fewest, whole = scratch / f"pairs-{min(pairs)}" / "manifest.jsonl", scratch / f"whole-{min(pairs)}"
    often = command(scratch / "model", fewest, scratch / "often", "--save-every", "64")
    seconds, _ = finished(command(scratch / "model", fewest, scratch / "undisturbed", "--save-every", "64"))
    record["kills"] = killed(often, seconds, kills, random.Random(seed))
    if not (scratch / "often").exists():
        finished(often)
    record["killed_equals_undisturbed"] = same_bytes(scratch / "often", scratch / "undisturbed")
    if workers:
        finished(command(scratch / "model", fewest, scratch / "two", num_workers=2))
        record["two_workers_equal_one"] = same_bytes(scratch / "two", whole)
    record["threads"] = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, nargs="+", default=[1_000, 10_000], help="numbers of pairs")
    parser.add_argument("--megapixels", type=float, default=1.0, help="pixels of a picture, in millions")
    parser.add_argument("--kills", type=int, default=5, help="kills of the survey of the fewest pairs")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments of the kills")
    parser.add_argument("--no-workers", action="store_true", help="leave out the survey with two workers (needs Ray)")
    parser.add_argument("--json", action="store_true", help="print the record as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(Path(scratch), given.pairs, given.megapixels, given.kills, given.seed, not given.no_workers)
    if given.json:
        print(json.dumps(record, indent=1))
        return
    for survey in record["surveys"]:
        print(f"{survey['pairs']:,} pairs of {record['megapixels']:g} megapixels: {survey['seconds']} s, {survey['peak_mib']} MiB")
    print(f"peak, most over fewest pairs: {record['peak_ratio']}")
    print(f"killed {record['kills']} times: {'equal' if record['killed_equals_undisturbed'] else 'DIFFERENT'} bytes")
    if "two_workers_equal_one" in record:
        print(f"two workers: {'equal' if record['two_workers_equal_one'] else 'DIFFERENT'} bytes")


if __name__ == "__main__":
    main()
