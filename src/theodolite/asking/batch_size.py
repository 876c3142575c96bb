"""Batch sizes from free memory, up to the number of tokens that saturates the device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import torch

from theodolite.asking.rows import TokenRow
from theodolite.records.errors import BadInput

# Larger batches are no faster: matrix products saturate the device.
MOST_TOKENS = {"cpu": 4_096}
MOST_TOKENS_ELSEWHERE = 65_536
FREE_FRAC = 0.25  # of free memory; the rest is for other parts of a survey


class BatchSizer:
    """Splits rows into batches of at most `batch` rows; without `batch`, of a power of two that fits free memory at the widest row.

    Free memory is read once. With the power of two, machines with enough memory form the same batches, so a survey repeats bit for bit.
    """

    def __init__(self, model: Any, batch: int | None) -> None:
        self.model, self.limit, self.fixed = model, batch, batch is not None
        self.largest = 0  # batch so far, in rows
        self.free_bytes: int | None = None

    def parts(self, rows: Sequence[TokenRow]) -> list[list[TokenRow]]:
        """Batches of rows of similar length, shortest first, as large as the widest row allows; one question's rows share a batch."""
        batches: list[list[TokenRow]] = []
        for bundle in sorted(_bundles(rows), key=_width):
            most = self.rows_of_width(_width(bundle), max(len(row.steps) for row in bundle))
            if batches and len(batches[-1]) + len(bundle) <= most:
                batches[-1] += bundle
            else:
                batches.append(list(bundle))
        self.largest = max([self.largest, *map(len, batches)])
        return batches

    def rows_of_width(self, width: int, steps: int = 64) -> int:
        """Batch size for rows of `width` tokens with `steps` answer tokens to score each."""
        if self.fixed and self.limit is not None:
            return self.limit
        device = self.model.device
        most_tokens = MOST_TOKENS.get(device.type, MOST_TOKENS_ELSEWHERE)
        if self.free_bytes is None:
            self.free_bytes = free_bytes(device)
        fits = min(most_tokens // width, int(FREE_FRAC * self.free_bytes // self._bytes_of_row(width, steps)))
        most = 1 << (max(fits, 1).bit_length() - 1)
        return most if self.limit is None else min(most, self.limit)

    def first_fitting(self, rows: Sequence[TokenRow]) -> list[TokenRow]:
        """The first rows up to the current limit, at least one question's; all rows where there is no limit."""
        first: list[TokenRow] = []
        for bundle in _bundles(rows):
            if first and self.limit is not None and len(first) + len(bundle) > self.limit:
                break
            first += bundle
        return first

    def shrink(self, rows: Sequence[TokenRow]) -> str:
        """Halves the limit after rows ran out of memory; returns a notice. Raises `BadInput` if they are one question's."""
        if len(list(_bundles(rows))) < 2:
            raise BadInput(
                f"memory is too small for a single question of {_width(rows)} tokens; load the model in bfloat16, or free memory"
            )
        self.limit = max(1, len(rows) // 2)
        return f"{len(rows)} rows at once did not fit into memory; going on with {self.limit}"

    def _bytes_of_row(self, width: int, steps: int) -> int:
        """Estimated peak memory of a row in bytes: one block's activations, its attention mask and map, two float32 copies of its logits.

        The vision tower is not counted: it runs earlier and needs less in most families.
        """
        text = self.model.config.get_text_config()
        number = torch.finfo(self.model.dtype).bits // 8
        block = width * (12 * text.hidden_size + 3 * text.intermediate_size) * number
        attention = width * width * (4 + text.num_attention_heads * number)
        return block + attention + 8 * steps * text.vocab_size


def _width(rows: Sequence[TokenRow]) -> int:
    return max(len(row.tokens) for row in rows)


def _bundles(rows: Sequence[TokenRow]) -> Iterator[list[TokenRow]]:
    """Groups of adjacent rows of one question."""
    bundle: list[TokenRow] = []
    for row in rows:
        if bundle and not (row.ends.keys() & bundle[-1].ends.keys()):
            yield bundle
            bundle = []
        bundle.append(row)
    if bundle:
        yield bundle


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that are free on a device."""
    if device.type == "cuda":
        # Memory that torch has reserved and not allocated is free, too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    return int(psutil.virtual_memory().available)
