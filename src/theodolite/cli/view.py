"""`theodolite view`: all surveys below a folder in a browser."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import app
from theodolite.cli.printing import print_line
from theodolite.records.errors import BadInput


@app.command("view")
def view_command(
    folder: Annotated[Path, typer.Argument(help="folder with surveys below it (default: runs)", show_default=False)] = Path("runs"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="port of this machine's loopback interface; 0 takes a free one")] = 8642,
    no_open: Annotated[
        bool, typer.Option("--no-open", help="print the address only; else a browser opens where there is a display")
    ] = False,
) -> None:
    """Show all surveys below a folder in a browser: search, reports, rows page by page, comparisons. Ends with Ctrl-C."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder; give one that holds surveys, such as runs")
    if missing := [name for name in ("starlette", "uvicorn") if find_spec(name) is None]:
        raise BadInput(f'view needs the package {missing[0]}; install it: pip install "theodolite[view]"')
    from theodolite.commands.view.serve import serve

    serve(folder, port, lambda address: print_line(f"view: {address} (Ctrl-C ends it)"), open_browser=not no_open)
