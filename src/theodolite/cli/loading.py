"""Ctrl-C and SIGTERM while libraries are loaded."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def loading() -> Iterator[None]:
    """Within the context SIGINT and SIGTERM end the process at once, with one line and status 130 or 143.

    Only for imports before anything is written. An exception would not do: where it comes within the start of a compiled module, it is
    dropped or becomes an ImportError, which libraries take for a package that is not installed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, f"theodolite: stopped by {signal.Signals(number).name} while libraries were loaded; nothing was changed\n".encode())
    os._exit(128 + number)
