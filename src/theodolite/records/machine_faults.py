"""Errors that the machine causes: a disk without space, a file that is gone, exhausted memory, a device or a worker process that fails.

Libraries report them under many types: Python's `OSError`, safetensors' own error, a plain `RuntimeError` of torch, an error of sqlite3.
"""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from theodolite.records.errors import BadInput

WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # these occur in writing alone
FULL = os.strerror(errno.ENOSPC)
OS_ERROR = re.compile(r"\(os error (\d+)\)")  # of libraries in Rust: safetensors, polars
DEVICE = re.compile(r"^(?:(?:CUDA|HIP|XPU|MPS|cuDNN|CUBLAS|cuBLAS|NCCL)\b.*\berror\b|CUBLAS_STATUS|CUDNN_STATUS)", re.IGNORECASE)
WORKER = re.compile(r"^DataLoader worker \(pid")
MOST_SHOWN = 200


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """An error, and those from which it was raised."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def disk_fault(error: BaseException) -> str | None:
    """The system's words for an error of writing ("No space left on device"); None if the error is another one."""
    for each in chain_of(error):
        number = _number(each)
        if number in WRITING:
            return os.strerror(number)
        if isinstance(each, sqlite3.Error) and "disk is full" in str(each):
            return FULL
        # torch.save says neither cause nor file; nothing but the disk makes its writer fail.
        if isinstance(each, RuntimeError) and ("PytorchStreamWriter failed" in str(each) or "inline_container.cc" in str(each)):
            return "the file could not be written, most likely for lack of space"
    return None


def _number(error: BaseException) -> int:
    if isinstance(error, OSError):
        return error.errno or 0
    match = OS_ERROR.search(str(error)) if isinstance(error, Exception) else None
    return int(match[1]) if match else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error reports exhausted memory, on an accelerator or on the CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "out of memory" in str(error))


def machine_fault(error: BaseException) -> str | None:
    """One sentence on an error that the machine causes, with its remedy; None if it is another error."""
    if (words := disk_fault(error)) is not None:
        named = (each.filename for each in chain_of(error) if isinstance(each, OSError) and each.filename)
        name = next(named, "standard output, or a file,")
        return f"{name} cannot be written ({words}); free some space there, or give a path that can be written"
    for each in chain_of(error):
        text = str(each).strip().partition("\n")[0][:MOST_SHOWN]
        if is_out_of_memory(each):
            return f"memory ran out ({text or 'MemoryError'})"
        if type(each).__name__ == "AcceleratorError" or (isinstance(each, RuntimeError) and DEVICE.search(text)):
            return f"the device failed ({text}); if it fails again, restart the machine, or choose another device"
        if isinstance(each, RuntimeError) and WORKER.search(text):
            return f"a process that reads the training data died ({text}); most often it was killed because memory ran out"
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{error.filename} cannot be used ({error.strerror}); it may have been removed or changed while the command ran"
    return None


@contextmanager
def naming_disk_faults(path: Path) -> Iterator[None]:
    """Raises `BadInput` that names the file for an error of writing within the context; all other errors pass."""
    try:
        yield
    except Exception as error:
        words = None if isinstance(error, BadInput) else disk_fault(error)
        if words is None:
            raise
        raise BadInput(f"{path} cannot be written ({words}); free some space there, or give a path that can be written") from error


@contextmanager
def no_tracebacks_of_full_disks() -> Iterator[None]:
    """Within the context a thread that fails for lack of space prints nothing; all other errors of threads are printed."""
    before = threading.excepthook

    def hook(failed: threading.ExceptHookArgs) -> None:
        if failed.exc_value is None or disk_fault(failed.exc_value) is None:
            before(failed)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before
