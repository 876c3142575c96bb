"""How time and memory grow with size: fitted exponents of survey, coverage, Gram, blind pairs and report, beside what the mathematics asks.

    python benchmarks/growth.py [--series coverage gram] [--repeats 3] [--most-s 360] [--json]

Each size runs in a process of its own, forked from one that has imported everything and done nothing, on one thread. Seconds are those of
the processor, which other work on the machine disturbs least; memory is the largest resident set over that before the work. An exponent is
the slope of log(cost) over log(size), fitted to the three largest sizes of one repetition: smaller ones are ruled by constant costs. A
series ends early at a size after which the next, by the exponent that the mathematics asks, would take more than `--most-s` of them.
"""

from __future__ import annotations

import os

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ[_threads] = "1"

# Behind the environment, which these libraries read when they are imported.
# ruff: noqa: E402
import argparse
import json
import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import aggregate
import gram
import numpy as np
import survey_scale

from theodolite.blind_pairs.search import EncoderVectors, blind_pairs
from theodolite.commands.report import write_page
from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.measurement.survey.describe import rows_hash
from theodolite.models.construction.build import build_vlm
from theodolite.models.export import export_vlm
from theodolite.questions.coverage import measure_coverage
from theodolite.records.survey import ModelConfig, SurveyRecord, Thresholds
from theodolite.worlds.factors import Factor, FactorSpace
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Policy, PolicyLine, Query

# A fit over three sizes is not exact, and n log n has a slope of 1.1 here.
TOLERANCE = 0.15
# Less growth than this is that of the allocator.
LEAST_MIB = 4.0
NUM_FITTED = 3
DIM = 256
VALUES = 10
SECONDS, MEMORY = "cpu_s", "peak_mib"


def survey(size: int, scratch: Path) -> Callable[[], None]:
    """A survey of so many pairs of small JPEG files by a tiny model, in a process of its own."""
    model, processor = build_vlm(("what colour", "red", "blue"), 0)
    export_vlm(model, processor, scratch / "model")
    pairs = survey_scale.manifest(scratch / "pairs", survey_scale.jpegs(scratch / "sources", 0.01), size)
    return lambda: _run(survey_scale.command(scratch / "model", pairs, scratch / "out"))


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def coverage(size: int, scratch: Path) -> Callable[[], None]:
    """Exact coverage by three questions in a world of so many scenes (a power of ten), all factors correlated in a chain."""
    names = [f"factor{number}" for number in range(round(np.log10(size)))]
    prior = Prior(FactorSpace(tuple(Factor(name, tuple(f"{name}-{value}" for value in range(VALUES))) for name in names)))
    for cause, effect in pairwise(names):
        prior = prior.correlate(cause, effect, 0.5)
    lines = [
        PolicyLine(Query(name, "open", name, (f"which {name}?",), prior.space[name].values, (name,), np.arange(VALUES)))
        for name in names[:3]
    ]
    return lambda: void(measure_coverage(prior, Policy(tuple(lines))))


def void(result: Any) -> None:
    """Drops a result."""


def gram_loss(size: int, scratch: Path) -> Callable[[], None]:
    """Forward and backward pass of the tiled Gram loss of one picture of so many tokens."""
    torch = gram.torch
    torch.set_num_threads(1)
    torch.manual_seed(0)
    student, teacher = torch.randn(size, DIM) + 0.3, torch.randn(size, DIM) + 0.25
    student.requires_grad_()
    return lambda: gram.gram_loss(student, teacher, [size]).backward()


def blind(size: int, scratch: Path) -> Callable[[], None]:
    """The search for blind pairs among so many pictures with vectors of two encoders on disk; a few of any picture's pairs qualify."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((-(-size // 4), DIM), dtype=np.float32)
    for name in ("one", "other"):
        vectors = np.lib.format.open_memmap(scratch / f"{name}.npy", "w+", np.float32, (size, DIM))
        for start in range(0, size, 4096):
            stop = min(start + 4096, size)
            vectors[start:stop] = rng.standard_normal((stop - start, DIM), dtype=np.float32) * (0.2 if name == "one" else 1.0)
            if name == "one":
                vectors[start:stop] += centres[np.arange(start, stop) // 4]

    def search() -> None:
        one, other = (EncoderVectors(np.load(scratch / f"{name}.npy", mmap_mode="r")) for name in ("one", "other"))
        void(blind_pairs(one, other, most=300, per_picture=3))

    return search


def report(size: int, scratch: Path) -> Callable[[], None]:
    """The page of a survey of so many rows, read from its folder."""
    rows = aggregate.synthetic_rows(size)
    names = rows["name"].unique(maintain_order=True).to_list()
    dependence = {name: frozenset({name.partition("=")[0]}) for name in names}
    record = SurveyRecord(
        title="synthetic",
        world=None,
        model=ModelConfig(family="llava", weights_sha256="0" * 64, num_parameters=1, dtype="float32"),
        policy=None,
        seed=0,
        num_scenes=rows["scene"].n_unique(),
        pictures_sha256="0" * 64,
        rows_sha256=rows_hash(rows),
        coverage=None,
        shadows=measure_shadows(rows, tuple(aggregate.VALUES), dependence, frozenset(names), Thresholds()),
        training=None,
    )
    (scratch / "survey.json").write_text(record.to_json(), encoding="utf-8")
    rows.write_parquet(scratch / "rows.parquet")
    return lambda: write_page([scratch], scratch / "page.html")


@dataclass(frozen=True)
class Series:
    """`prepare(size, folder)` returns the work that is measured; `time` and `memory` are the exponents that the mathematics asks."""

    prepare: Callable[[int, Path], Callable[[], None]]
    unit: str
    sizes: tuple[int, ...]
    time: float
    memory: float
    reason: str


SERIES = {
    "survey": Series(
        survey, "pairs", (300, 1_000, 3_000, 10_000, 30_000, 100_000), 1, 1,
        "every pair is asked; a row of the record for each, no picture",
    ),
    "coverage": Series(
        coverage, "scenes", tuple(10**power for power in range(3, 8)), 1, 1,
        "every scene is enumerated, once for each of log n factors; tables over all scenes",
    ),
    "Gram": Series(
        gram_loss, "tokens", (256, 512, 1_024, 2_048, 4_096, 8_192), 2, 1,
        "all pairs of tokens; in tiles, so memory is that of the tokens",
    ),
    "blind": Series(
        blind, "pictures", (1_000, 3_000, 10_000, 30_000, 100_000), 2, 1,
        "all pairs of pictures; in blocks, so memory is that of the list of pictures",
    ),
    "report": Series(
        report, "rows", tuple(10**power for power in range(2, 7)), 1, 1,
        "every row is read, and the worst come first (n log n)",
    ),
}  # fmt: skip


def run_one(name: str, size: int) -> dict[str, float]:
    """Seconds and MiB of one size, in this process (a survey's are those of its own process, imports included)."""
    with tempfile.TemporaryDirectory() as folder:
        work = SERIES[name].prepare(size, Path(folder))
        gram.reset_peak()
        base, cpu, wall = gram.resident("VmRSS"), cpu_seconds(), time.perf_counter()
        work()
        spent = {SECONDS: cpu_seconds() - cpu, "wall_s": time.perf_counter() - wall, MEMORY: gram.resident("VmHWM") - base}
        if name == "survey":
            spent[MEMORY] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        return spent


def cpu_seconds() -> float:
    """Seconds of the processor of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def apart(name: str, size: int) -> dict[str, float]:
    """`run_one` in a forked process. Raises what it raised."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as pool:
        return pool.submit(run_one, name, size).result()


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Slope of log(cost) over log(size), by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def measure(name: str, repeats: int, most_s: float) -> dict[str, Any]:
    """Costs of every size, and both exponents as median, least and greatest of the repetitions."""
    series = SERIES[name]
    sizes: list[int] = []
    runs: list[list[dict[str, float]]] = [[] for _ in range(repeats)]
    for size in series.sizes:
        if len(sizes) >= NUM_FITTED and runs[0][-1][SECONDS] * (size / sizes[-1]) ** series.time > most_s:
            break
        sizes.append(size)
        for run in runs:
            run.append(apart(name, size))
        print(json.dumps({"series": name, "size": size, **runs[0][-1]}), file=sys.stderr, flush=True)
    record: dict[str, Any] = {"series": name, "unit": series.unit, "sizes": sizes, "left_out": list(series.sizes[len(sizes) :])}
    for cost, least, asked in ((SECONDS, 1e-3, series.time), (MEMORY, LEAST_MIB, series.memory)):
        fits = [exponent(sizes[-NUM_FITTED:], [max(each[cost], least) for each in run[-NUM_FITTED:]]) for run in runs]
        record[cost] = [round(statistics.median(run[at][cost] for run in runs), 3) for at in range(len(sizes))]
        record[f"{cost}_exponent"] = {
            "value": round(statistics.median(fits), 2), "low": round(min(fits), 2), "high": round(max(fits), 2), "asked": asked,
            "is_within": statistics.median(fits) <= asked + TOLERANCE,
        }  # fmt: skip
    return {**record, "reason": series.reason}


def show(records: Sequence[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="growth: exponents of processor seconds and of peak memory, over the three largest sizes")
    for column in ("of", "sizes", "time", "asked", "memory", "asked", "s at the largest", "MiB"):
        table.add_column(column, justify="left" if column in ("of", "sizes") else "right")
    for record in records:
        cells = [record["series"], f"{record['sizes'][0]:,} to {record['sizes'][-1]:,} {record['unit']}"]
        for cost in (SECONDS, MEMORY):
            fit = record[f"{cost}_exponent"]
            cells += [f"{fit['value']} ({fit['low']} to {fit['high']})", f"{fit['asked']:g}"]
        table.add_row(*cells, f"{record[SECONDS][-1]:.1f}", f"{record[MEMORY][-1]:.0f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--series", nargs="+", default=list(SERIES), choices=SERIES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--most-s", type=float, default=360, help="processor seconds that a size may take, as estimated from the one before"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    records = [measure(name, given.repeats, given.most_s) for name in given.series]
    print(json.dumps(records, indent=1)) if given.json else show(records)
    if not all(record[f"{cost}_exponent"]["is_within"] for record in records for cost in (SECONDS, MEMORY)):
        sys.exit("an exponent is above what the mathematics asks")


if __name__ == "__main__":
    main()
