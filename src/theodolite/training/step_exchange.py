"""What the processes of a run tell each other before a step: all of it in one collective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from theodolite.worlds.decoding import NOTES

# A micro-batch's dropped examples, (key, reason) each, and the number of examples that it was made from.
Tally = tuple[Sequence[tuple[str, str]], int]
NO_NOTES = [0] * len(NOTES)


def without_tallies(batches: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], list[Tally], list[int]]:
    """The batches without what their collator counted; their tallies; and the pictures of all by note (`decoding.NOTES`)."""
    rests = [dict(batch) for batch in batches]
    noted = [sum(counts) for counts in zip(NO_NOTES, *(rest.pop("noted", NO_NOTES) for rest in rests), strict=True)]
    return rests, [(rest.pop("dropped", []), rest.pop("num_seen", 0)) for rest in rests], noted


def summed_together(
    numbers: Mapping[str, Sequence[int]], sums: Float[Tensor, " entry"], over_processes: Callable[[Tensor], Tensor]
) -> tuple[dict[str, list[int]], Float[Tensor, " entry"]]:
    """Lists of integers by name and a vector on the device, each summed over all processes by one call of `over_processes`.

    Each process gives the same names and lengths. In double precision: integers are exact below 2^53, and sums of single-precision numbers
    of two processes are those of single precision. The host waits for the integers, and not for the vector.
    """
    flat = torch.tensor([number for values in numbers.values() for number in values], dtype=torch.float64)
    both = over_processes(torch.cat([flat.to(sums.device, non_blocking=True), sums.double()]))
    integers = [round(value) for value in both[: len(flat)].tolist()]
    edges = pairwise(accumulate(map(len, numbers.values()), initial=0))
    return {name: integers[slice(*edge)] for name, edge in zip(numbers, edges, strict=True)}, both[len(flat) :].to(sums.dtype)
