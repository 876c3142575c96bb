"""`theodolite fetch`: third-party pictures that galleries use."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from theodolite.cli.app import app
from theodolite.cli.printing import console, print_line
from theodolite.records.errors import UnknownName


@app.command("fetch")
def fetch_command(
    what: Annotated[str, typer.Argument(help="openmoji (installed by npm; licence CC BY-SA 4.0)", show_default=False)],
    into: Annotated[Path | None, typer.Option(help="folder to install in (default: where galleries look)", show_default=False)] = None,
) -> None:
    """Install the pictures that galleries use from where their makers publish them."""
    from theodolite.commands.fetch import fetch_openmoji

    if what != "openmoji":
        raise UnknownName("package of pictures", what, ("openmoji",))
    fetched = fetch_openmoji(into)
    print_line(f"{'installed in' if fetched.installed else 'already installed in'} {fetched.home}")
    if into is not None:
        print_line(f"let galleries find it: export THEODOLITE_OPENMOJI={fetched.home.resolve()}")
    console.print(fetched.attribution, soft_wrap=True)
