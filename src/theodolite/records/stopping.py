"""Ctrl-C and SIGTERM during a command: one line, and status 130 or 143."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

from theodolite.records.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """SIGINT and SIGTERM from now on: the first raises `Interrupted`, the second ends the process at once.

    So does the first one while a module is loaded: an exception within the start of a compiled module is dropped, or becomes an
    ImportError, which libraries take for a package that is not installed. `signum` is the signal that came, None before.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._process: int | None = None
        self._hook = sys.unraisablehook

    def handle(self) -> None:
        """Handles the signals; only a main thread can do so."""
        if threading.current_thread() is threading.main_thread():
            self._process = os.getpid()
            sys.unraisablehook = self._leave_if_dropped
            for number in SIGNALS:
                signal.signal(number, self._stop)

    def line(self, signum: int) -> str:
        """The sentence that a stopped command prints."""
        return f"stopped by {signal.Signals(signum).name}; no record was left half-written"

    def _stop(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a process that this one forked, which Ctrl-C reaches as well
            if number == signal.SIGTERM:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)
            return
        is_first, self.signum = self.signum is None, number
        if not is_first or _is_loading(frame):
            self._leave(number)
        raise Interrupted(number, self.line(number))

    def _leave(self, number: int) -> None:
        os.write(2, f"theodolite: {self.line(number)}\n".encode())  # not print: the signal may have come within one
        os._exit(128 + number)

    def _leave_if_dropped(self, dropped: Any) -> None:
        """Python drops what is raised within a finalizer or a callback from C."""
        if self.signum is not None and dropped.exc_type is Interrupted:
            self._leave(self.signum)
        self._hook(dropped)


def _is_loading(frame: FrameType | None) -> bool:
    """Whether a module is imported in this frame or below it."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


STOPPING = Stopping()
