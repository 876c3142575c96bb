"""One table of speeds, as ratios of one run: `python benchmarks/table.py [--json] [--growth] [--repeats 3]`, or `make bench`.

Both sides of a ratio are measured in turns, so that other work on the machine falls on both; a row gives the median of the repetitions and
their range. Training is compared with TRL's `SFTTrainer` where TRL is installed. `--growth` adds the exponents of benchmarks/growth.py.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import aggregate
import gram
import rendering
import sft
from rich.console import Console
from rich.table import Table

import asking

WIDTH = 80
AIM = 1.5  # of training against TRL
TOUR_QUESTIONS = 2


@dataclass(frozen=True)
class Row:
    """A ratio of speeds (ours over the baseline's, above 1 is faster) with its range; None: not measured, and `figure` says why."""

    what: str
    against: str
    figure: str
    ratio: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, what: str, against: str, figure: str, ratios: Sequence[float]) -> Row:
        return cls(what, against, figure, *(round(each, 3) for each in (statistics.median(ratios), min(ratios), max(ratios))))


def training(repeats: int) -> list[Row]:
    """One, two (as in the tour) and eight independent questions about a picture, in float32."""
    if not sft.has_trl():
        return [Row("training", "TRL's SFTTrainer", sft.HOW_TO_INSTALL)]
    rows = []
    for record in sft.measure((1, TOUR_QUESTIONS, sft.MOST_QUESTIONS), 8, 16, repeats, bf16=False):
        figure = f"{record['tokens_per_s']['theodolite']:,.0f} loss tokens/s"
        what = f"training, {record['questions']} question{'s' * (record['questions'] > 1)} a picture"
        rows.append(Row(what, "TRL's SFTTrainer", figure, record["ratio"], record["ratio_low"], record["ratio_high"]))
    return rows


def questions(repeats: int) -> list[Row]:
    record = asking.measure(asking.parser().parse_args(["--repeats", str(repeats), "--pictures", "4", "--shared", "2", "--apart", "8"]))
    figure = f"{record['pictures_per_s']['shared']} pictures/s (floor {record['floor']})"
    return [
        Row("asking 8 questions a picture", "a pass for each", figure, record["speedup"], record["speedup_low"], record["speedup_high"])
    ]


def gram_loss(repeats: int) -> list[Row]:
    """The Gram loss of 4,096 tokens, in time and in memory."""
    records = [gram.compare([4096], 512, 2) for _ in range(repeats)]
    seconds, mib = (statistics.median(each[name] for each in records) for name in ("tiled_s", "tiled_peak_mib"))
    return [
        Row.of("Gram loss, time", "its formula", f"{seconds * 1000:,.0f} ms", [each["times_faster"] for each in records]),
        Row.of("Gram loss, memory", "its formula", f"{mib:,.0f} MiB", [each["times_less_memory"] for each in records]),
    ]


def drawing(repeats: int) -> list[Row]:
    records = [rendering.measure(2_000, 64) for _ in range(repeats)]
    speed = statistics.median(each["pictures_per_s"] for each in records)
    return [Row.of("rendering 64 x 64", "decoding as PNG", f"{speed:,.0f} pictures/s", [each["ratio"] for each in records])]


def aggregation(repeats: int) -> list[Row]:
    """All rates with intervals of 100,000 rows, as a multiple of reading the rows."""
    records = [aggregate.apart(100_000) for _ in range(repeats)]
    seconds = statistics.median(each["measuring_s"] for each in records)
    ratios = [each["reading_s"] / each["measuring_s"] for each in records]
    return [Row.of("rates of 100,000 rows", "reading the rows", f"{seconds:.2f} s", ratios)]


def start_up(repeats: int) -> list[Row]:
    """Processor seconds from nothing, against what is imported anyway."""
    commands = {
        ("import theodolite", "import numpy"): (["-c", "import theodolite"], ["-c", "import numpy"]),
        ("theodolite --help", "import torch"): (["-m", "theodolite", "--help"], ["-c", "import torch"]),
    }
    rows = []
    for (what, against), pair in commands.items():
        taken = [[cpu_seconds(command) for command in pair] for _ in range(2 * repeats)]
        figure = f"{statistics.median(own for own, _ in taken):.2f} s"
        rows.append(Row.of(what, against, figure, [other / own for own, other in taken]))
    return rows


def cpu_seconds(arguments: Sequence[str]) -> float:
    """Seconds of the processor of a Python process, without output. Raises `RuntimeError` if it fails."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}")
    return used.ru_utime + used.ru_stime


PARTS = {
    "training": training,
    "asking": questions,
    "gram": gram_loss,
    "rendering": drawing,
    "aggregation": aggregation,
    "start-up": start_up,
}


def show(rows: Sequence[Row], console: Console) -> None:
    table = Table(title=f"speed as a ratio to a baseline (training: at least {AIM} is the aim)", width=WIDTH)
    for column in ("what", "against", "figure", "ratio"):
        table.add_column(column, justify="right" if column == "ratio" else "left")
    for row in rows:
        ratio = "not measured" if row.ratio is None else f"{row.ratio:.2f} ({row.low:.2f} to {row.high:.2f})"
        table.add_row(row.what, row.against, row.figure, ratio)
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--growth", action="store_true", help="add the exponents of growth (half an hour)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    rows: list[Row] = []
    for name in given.parts:
        rows += PARTS[name](given.repeats)
        print(f"{name}: measured", file=sys.stderr, flush=True)
    record: dict[str, Any] = {"speed": [asdict(row) for row in rows]}
    if given.growth:
        import growth

        record["growth"] = [growth.measure(name, given.repeats, 360) for name in growth.SERIES]
    if given.json:
        print(json.dumps(record, indent=1))
        return
    show(rows, Console(width=WIDTH))
    if given.growth:
        growth.show(record["growth"])


if __name__ == "__main__":
    main()
