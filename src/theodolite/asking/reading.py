"""Reading a pool: threads decode and process pictures ahead of the model, in bounded memory, and each file is decoded once."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar, cast

from theodolite.asking.pictures import Picture, PicturePool
from theodolite.worlds.decoding import strict_pillow

# Pixels of the files that are decoded or wait for the model at a time: four photographs of 12 megapixels, about 1.3 GB where a processor
# keeps them all.
MOST_PIXELS_AHEAD = 48_000_000

Item = TypeVar("Item")
# What an iterator gives behind its last item.
END = object()


def one_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items in order: a thread makes the next one while the one before is worked on."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, items, END)
        while (item := following.result()) is not END:
            following = thread.submit(next, items, END)
            yield cast(Item, item)


def default_workers() -> int:
    """Threads that read pictures if no number is given: one for each core, at most 8."""
    return min(os.cpu_count() or 1, 8)


def read_ahead(pool: PicturePool, numbers: Iterable[int], process: Callable[[Picture], Item], workers: int) -> Iterator[tuple[int, Item]]:
    """Every picture's number and what `process` makes of it, in the order of files; `workers` threads read ahead.

    The order, and so all that follows from it, does not depend on the number of threads.
    """

    def read(own: Sequence[int]) -> list[Item]:
        return [process(picture) for picture in pool.read(own)]

    files = pool.by_file(numbers)
    waiting: deque[tuple[tuple[int, ...], int, Future[list[Item]]]] = deque()
    pixels, at = 0, 0
    with strict_pillow(), ThreadPoolExecutor(workers) as threads:
        try:
            while waiting or at < len(files):
                while at < len(files) and len(waiting) < 2 * workers:
                    more = pool.num_pixels(files[at])
                    if waiting and pixels + more > MOST_PIXELS_AHEAD:
                        break
                    waiting.append((files[at], more, threads.submit(read, files[at])))
                    pixels, at = pixels + more, at + 1
                own, taken, future = waiting.popleft()
                yield from zip(own, future.result(), strict=True)
                pixels -= taken
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
