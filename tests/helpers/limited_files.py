"""A Python program whose files may have so many bytes at most: `python limited_files.py BYTES -m theodolite ...`."""

from __future__ import annotations

import resource
import runpy
import sys
from pathlib import Path


def main() -> None:
    most = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # Python ignores the signal, so writes fail with "File too large"
    if sys.argv[2] == "-m":
        sys.argv = sys.argv[3:]
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = sys.argv[2:]
        sys.path.insert(0, str(Path(sys.argv[0]).parent))
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
