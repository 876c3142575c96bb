"""`python ...` as a child of the fork server, with the imports made that most programs here make: `main` reads one request from `sys.argv`.

The request is JSON: `arguments` (`-m MODULE ...` or `SCRIPT ...`), `cwd`, `environment` and `stderr`, the file of its error output.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path

# Most of the seconds of a program's start. What starts threads (polars) is left to the program, as a fork would lose them.
import altair  # noqa: F401
import datasets  # noqa: F401
import jinja2  # noqa: F401
import peft  # noqa: F401
import scipy.stats  # noqa: F401
import sklearn.linear_model  # noqa: F401
import transformers.models.auto.modeling_auto
import transformers.models.llava.modeling_llava
import transformers.trainer  # noqa: F401
import typer  # noqa: F401

from helpers import TESTS


def main() -> None:
    request = json.loads(sys.argv[1])
    error_output = os.open(request["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(error_output, 2)
    os.close(error_output)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    option, *arguments = request["arguments"]
    home = request["cwd"] if option == "-m" else str(Path(option).parent)
    sys.path[:] = [home, *(path for path in sys.path[1:] if path != str(TESTS))]
    if option == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [option, *arguments]
        runpy.run_path(option, run_name="__main__")
