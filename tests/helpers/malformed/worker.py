"""The process that tries cases: `worker.py FOLDER SEED TARGET=CASES ...`. It imports everything once and forks for each target.

`worker.py FOLDER SEED TARGET=repeat` reads one case in base64 from stdin and runs it unguarded, to see its traceback.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from base64 import b64decode, b64encode
from importlib import import_module
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from helpers.malformed.guard import Guard, peak_bytes
from helpers.malformed.target import MODULES, Prepare

STUCK_S = 120.0  # without a new case, on a machine that others use too: longer than any case may take, even where no signal stops it


def prepare_of(name: str) -> Prepare:
    prepare: Prepare = import_module(MODULES[name]).TARGETS[name]
    return prepare


def main() -> None:
    home, first_seed, *wanted = sys.argv[1:]
    pairs = [(name, count) for name, _, count in (each.rpartition("=") for each in wanted)]
    prepared = {name: prepare_of(name) for name, _ in pairs}
    for name, count in pairs:
        place = Path(home) / name.replace(" ", "_")
        (place / "case").mkdir(parents=True)
        if count == "repeat":
            os.chdir(place / "case")
            prepared[name](place / "case").consume(b64decode(sys.stdin.read()))
            continue
        child = os.fork()
        if child == 0:
            run_cases(name, prepared[name], place, int(count), int(first_seed))
            sys.stdout.flush()
            os._exit(0)
        supervise(name, child, place)


def supervise(name: str, child: int, place: Path) -> None:
    """Waits for a target's process; what ends it, or holds it up, is a failure of its last case."""
    current = place / "current"
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if current.exists() and time.time() - current.stat().st_mtime > STUCK_S:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.1)
    if not (place / "result.json").exists():
        payload = current.read_bytes() if current.exists() else b""
        message = f"the process ended with {os.waitstatus_to_exitcode(status)}"
        failure = {"kind": "process", "place": name, "message": message, "payload": b64encode(payload).decode()}
        write_result(place, cases=0, read=0, refused=0, cpu_s=0.0, slowest_s=0.0, peak_mb=0.0, failures=[failure])


def run_cases(name: str, prepare: Prepare, place: Path, number: int, first_seed: int) -> None:
    begin = time.process_time()
    os.chdir(place / "case")
    ready = prepare(place / "case")
    guard, round_ = Guard(place / "case", ready.allowed), 0
    while guard.num_cases < number and not guard.is_over:  # Hypothesis ends early where it has drawn all that can be drawn

        @seed(first_seed + round_)
        @settings(
            max_examples=number - guard.num_cases,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(ready.cases)
        def try_one(payload: bytes) -> None:
            if guard.num_cases < number and not guard.is_over:
                guard.try_case(ready.consume, payload)

        try_one()
        round_ += 1
    write_result(
        place,
        cases=guard.num_cases,
        read=guard.num_read,
        refused=guard.num_refused,
        cpu_s=time.process_time() - begin,
        slowest_s=guard.slowest_s,
        peak_mb=peak_bytes() / 2**20,
        failures=[failure.as_dict() for failure in guard.failures.values()],
    )


def write_result(place: Path, **result: object) -> None:
    part = place / "result.part"
    part.write_text(json.dumps(result))
    part.rename(place / "result.json")


if __name__ == "__main__":
    main()
