"""`theodolite survey ...` whose model fails in one forward pass: `python faulty_survey.py FAULT NUMBER survey ...`.

The fault, in the pass of this number from 0: `memory`, `memory-always` (in each pass from then on), `device`, `device-text` (an error
as older versions of torch raise it), `removed` (the folder that holds the output is emptied).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from theodolite.asking.local import LocalAsker

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call"


def fail(fault: str) -> None:
    if fault == "removed":
        home = Path(sys.argv[sys.argv.index("--out") + 1]).parent
        for path in home.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        return
    if fault.startswith("memory"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    raise torch.AcceleratorError(ILLEGAL) if fault == "device" else RuntimeError(ILLEGAL)


def main() -> None:
    torch.set_num_threads(1)
    fault, number = sys.argv[1], int(sys.argv[2])
    score, passes = LocalAsker.score, [0]

    def faulty_score(asker: LocalAsker, *args: Any, **options: Any) -> Any:
        passes[0] += 1
        if passes[0] - 1 == number or (fault == "memory-always" and passes[0] > number):
            fail(fault)
        return score(asker, *args, **options)

    LocalAsker.score = faulty_score  # type: ignore[method-assign]
    from theodolite import cli

    sys.argv = ["theodolite", *sys.argv[3:]]
    cli.main()


if __name__ == "__main__":
    main()
