"""The command that reads plain text with language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from theodolite.cli.app import AsJson, app, console


@app.command()
def language(
    models: Annotated[list[str], typer.Argument(help="VLMs or language models; the first is what the others are compared with")],
    text: Annotated[
        list[Path] | None, typer.Option(help="files of UTF-8 text (default: descriptions of data sets in scikit-learn)")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What training on pictures cost the language: loss a token of plain text that no stage trained on."""
    from theodolite.commands.language import language_losses, language_table
    from theodolite.commands.progress import Steps

    found = language_losses(models, text or [], Steps(Console(stderr=True) if as_json else console))
    if as_json:
        print(found.to_json(), end="")
        return
    console.print(language_table(found))
