"""What one case may not do: raise anything but the package's own errors, run over 5 s, write outside its folder, read the canary, start
a program, unpickle a class, or take the process over 2 GB. Linux only."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
import traceback
from base64 import b64encode
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

MOST_S = 5.0
MOST_BYTES = 2 * 2**30
SAFETY_BYTES = 6 * 2**30  # of addresses beyond those at the start: what asks for more is a fault, and must not take the machine down
CANARY = "outside.png"
CALLS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "ctypes.dlopen")
CHANGES = (
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "os.chmod",
    "shutil.rmtree",
    "sqlite3.connect",
)
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class TooSlow(BaseException):
    """A case has used its seconds; no `except Exception` of a library stops it."""


@dataclass(frozen=True)
class Failure:
    """A case that broke a rule: the kind, its place in the code, the message, and the bytes in base64."""

    kind: str
    place: str
    message: str
    payload: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


class Guard:
    """Watches the cases of one process. `failures` holds the smallest case of each kind and place."""

    def __init__(self, folder: Path, allowed: tuple[type[BaseException], ...]) -> None:
        self.folder, self.allowed = folder.resolve(), allowed
        self.failures: dict[tuple[str, str], Failure] = {}
        self.num_cases = self.num_read = self.num_refused = 0
        self.slowest_s = 0.0
        self.is_over = False
        self._active = False
        self._broken: list[tuple[str, str]] = []
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + SAFETY_BYTES, resource.RLIM_INFINITY))
        signal.signal(signal.SIGPROF, self._too_slow)
        sys.addaudithook(self._audit)

    def try_case(self, consume: Callable[[bytes], object], payload: bytes) -> None:
        """Runs one case. Nothing that it raises comes out."""
        self.num_cases += 1
        (self.folder.parent / "current").write_bytes(payload)
        self._broken.clear()
        begin = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, MOST_S)
        self._active = True
        try:
            consume(payload)
            self.num_read += 1
        except self.allowed as error:
            self.num_refused += 1
            if not str(error).strip():
                self._fail("error", place_of(error), "the message is empty", payload)
        except TooSlow as error:
            self._fail("slow", place_of(error), f"over {MOST_S:g} s of CPU", payload)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a panic of a Rust library is no Exception
            self._fail("error", place_of(error), f"{type(error).__name__}: {str(error)[:300]}", payload)
        finally:
            self._active = False
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.slowest_s = max(self.slowest_s, time.process_time() - begin)
        for kind, message in self._broken:
            self._fail(kind, message, message, payload)
        if peak_bytes() > MOST_BYTES:
            self._fail("memory", "peak", f"the process took {peak_bytes() / 2**30:.1f} GiB", payload)
            self.is_over = True  # later cases of this process cannot be measured

    def _fail(self, kind: str, place: str, message: str, payload: bytes) -> None:
        known = self.failures.get((kind, place))
        failure = Failure(kind, place, message, b64encode(payload).decode())
        if known is None or len(known.payload) > len(failure.payload):
            self.failures[kind, place] = failure

    def _too_slow(self, number: int, frame: FrameType | None) -> None:
        raise TooSlow

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        if event == "open":
            path, mode, flags = arguments
            if isinstance(path, str | bytes | os.PathLike):
                writes = bool((flags or 0) & WRITING) or (isinstance(mode, str) and any(sign in mode for sign in "wax+"))
                self._check(str(os.fsdecode(path)), "write" if writes else "read")
        elif event in CHANGES:
            for path in arguments[:2]:
                if isinstance(path, str | bytes | os.PathLike):
                    self._check(str(os.fsdecode(path)), "write")
        elif event in CALLS:
            self._broken.append(("call", f"{event} {str(arguments)[:100]}"))

    def _check(self, path: str, use: str) -> None:
        whole = os.path.abspath(path)
        if use == "read":
            if os.path.basename(whole) == CANARY:
                self._broken.append(("read", f"opened {path}"))
        elif path != ":memory:" and whole != os.devnull and not whole.startswith(f"{self.folder}{os.sep}") and whole != str(self.folder):
            self._broken.append(("write", f"wrote {path}"))


def place_of(error: BaseException) -> str:
    """The kind of error, and the last lines of this package and of all in its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "theodolite" in frame.filename and "helpers" not in frame.filename]
    shown = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in (*own[-1:], *frames[-1:])]
    return f"{type(error).__name__} at {' > '.join(dict.fromkeys(shown))}"


def peak_bytes() -> int:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
