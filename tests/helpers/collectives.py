"""Counts the collectives of torch.distributed that this project's code starts, not those of DDP, FSDP2 and the Trainer itself."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch.distributed as dist

import theodolite

OWN = str(Path(theodolite.__file__).parent)
NAMES = (
    "all_reduce",
    "all_gather",
    "all_gather_into_tensor",
    "all_gather_object",
    "all_to_all_single",
    "barrier",
    "broadcast",
    "broadcast_object_list",
    "gather",
    "reduce",
    "reduce_scatter_tensor",
    "scatter",
)
# Where a collective of the wrappers passes through.
WRAPPERS = ("/torch/distributed/fsdp/", "/torch/nn/parallel/")


@contextmanager
def counted_collectives() -> Iterator[Counter[str]]:
    """Within the context, the number of collectives by operation and the line of code that asked for it."""
    found: Counter[str] = Counter()
    is_inside = False

    def counted(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def count(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_inside
            if is_inside:  # one collective of objects is two of tensors
                return work(*args, **kwargs)
            is_inside = True
            try:
                if (line := own_line()) is not None:
                    found[f"{name} at {line}"] += 1
                return work(*args, **kwargs)
            finally:
                is_inside = False

        return count

    # accelerate looks each of them up in the module when it calls.
    with mock.patch.multiple(dist, **{name: counted(name, getattr(dist, name)) for name in NAMES}):
        yield found


def own_line() -> str | None:
    """The line of this project's code that asked for a collective; None if a library did so by itself."""
    frames = [frame for frame in traceback.extract_stack() if frame.filename != __file__]
    if any(part in frame.filename for frame in frames for part in WRAPPERS):
        return None
    frame = next(frame for frame in reversed(frames) if "/torch/" not in frame.filename and "/accelerate/" not in frame.filename)
    return f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" if frame.filename.startswith(OWN) else None
