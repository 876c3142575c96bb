"""`theodolite language`: the loss of language models on plain text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from theodolite.cli.app import AsJson, app
from theodolite.cli.printing import console, print_table


@app.command("language")
def language_command(
    models: Annotated[list[str], typer.Argument(help="VLMs or language models; the others are compared with the first")],
    text: Annotated[list[Path] | None, typer.Option(help="files of UTF-8 text (default: data set descriptions of scikit-learn)")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure what training on pictures cost the language model: loss a token of plain text that no stage trained on."""
    from theodolite.commands.language import language_losses, language_table
    from theodolite.commands.progress import Steps

    losses = language_losses(models, text or [], Steps(Console(stderr=True) if as_json else console))
    if as_json:
        print(losses.to_json(), end="")
        return
    print_table(language_table(losses))
