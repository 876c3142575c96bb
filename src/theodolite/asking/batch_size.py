"""How many rows run at once: what free memory allows, up to a number of tokens that keeps the machine busy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import torch

from theodolite.asking.rows import TokenRow
from theodolite.records.errors import BadInput

# More tokens at once gain nothing: matrix products are large enough by then.
MOST_TOKENS = {"cpu": 4_096}
MOST_TOKENS_ELSEWHERE = 65_536
FREE_FRAC = 0.25  # of free memory, since other parts of a survey need some too


def out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory has run out, on an accelerator or here."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


class BatchSizer:
    """Parts of at most so many rows: `batch` if given, else a power of two that free memory and the widest row allow.

    A power of two, from the memory that is free when it is first asked, so that machines with room enough take the same batches and a
    survey repeats to the byte.
    """

    def __init__(self, model: Any, batch: int | None) -> None:
        self.model, self.limit, self.fixed = model, batch, batch is not None
        self.largest = 0  # rows at once so far
        self.free_bytes: int | None = None

    def parts(self, rows: Sequence[TokenRow]) -> list[list[TokenRow]]:
        """Rows of like length together, shortest first, as many to a part as its widest allows; the rows of one ask stay together."""
        parts: list[list[TokenRow]] = []
        for bundle in sorted(_bundles(rows), key=_width):
            most = self.rows_of_width(_width(bundle), max(len(row.steps) for row in bundle))
            if parts and len(parts[-1]) + len(bundle) <= most:
                parts[-1] += bundle
            else:
                parts.append(list(bundle))
        self.largest = max([self.largest, *map(len, parts)])
        return parts

    def rows_of_width(self, width: int, steps: int = 64) -> int:
        """How many rows of so many tokens run at once, each with so many answer tokens to score."""
        if self.fixed and self.limit is not None:
            return self.limit
        device = self.model.device
        most_tokens = MOST_TOKENS.get(device.type, MOST_TOKENS_ELSEWHERE)
        if self.free_bytes is None:
            self.free_bytes = _free_bytes(device)
        fits = min(most_tokens // width, int(FREE_FRAC * self.free_bytes // self._bytes_of_row(width, steps)))
        most = 1 << (max(fits, 1).bit_length() - 1)
        return most if self.limit is None else min(most, self.limit)

    def first_fitting(self, rows: Sequence[TokenRow]) -> list[TokenRow]:
        """The first rows, no more than are known to fit by now; all of them where nothing has failed yet."""
        part: list[TokenRow] = []
        for bundle in _bundles(rows):
            if part and self.limit is not None and len(part) + len(bundle) > self.limit:
                break
            part += bundle
        return part

    def shrink(self, rows: Sequence[TokenRow]) -> str:
        """Half as many rows at once from now on, since these did not fit; says so. Raises `BadInput` where there is nothing to part."""
        if len(list(_bundles(rows))) < 2:
            raise BadInput(
                f"memory is too small for a single question of {_width(rows)} tokens; load the model in bfloat16, if it is not yet"
            )
        self.limit = max(1, len(rows) // 2)
        return f"{len(rows)} rows at once did not fit into memory; going on with {self.limit}"

    def _bytes_of_row(self, width: int, steps: int) -> int:
        """About what a row takes at its largest: one block's activations, its attention mask and map, and its logits twice in float32.

        What the vision tower takes is not counted: it runs before, on fewer tokens' worth of memory in most families.
        """
        text = self.model.config.get_text_config()
        number = torch.finfo(self.model.dtype).bits // 8
        block = width * (12 * text.hidden_size + 3 * text.intermediate_size) * number
        attention = width * width * (4 + text.num_attention_heads * number)
        return block + attention + 8 * steps * text.vocab_size


def _width(rows: Sequence[TokenRow]) -> int:
    return max(len(row.tokens) for row in rows)


def _bundles(rows: Sequence[TokenRow]) -> Iterator[list[TokenRow]]:
    """Neighbouring rows that belong to one ask."""
    bundle: list[TokenRow] = []
    for row in rows:
        if bundle and not (row.ends.keys() & bundle[-1].ends.keys()):
            yield bundle
            bundle = []
        bundle.append(row)
    if bundle:
        yield bundle


def _free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        # What torch holds and does not use is free, too.
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    return int(psutil.virtual_memory().available)
