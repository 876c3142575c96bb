"""The command that reads plain text with language models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
    import json

    from theodolite.studies.language import language_losses, language_table
    from theodolite.studies.progress import Steps

    first, changes = language_losses(models, text or [], Steps(console))
    if as_json:
        print(json.dumps({"first": first.model_dump(), "changes": [change.model_dump() for change in changes]}, indent=1))
        return
    console.print(language_table(first, changes))
