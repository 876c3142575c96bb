"""`theodolite build`: a VLM from a vision encoder and a language model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.app import Overwrite, app
from theodolite.cli.printing import print_line


@app.command("build")
def build_command(
    encoder: Annotated[
        str,
        typer.Option(
            help="a Hugging Face vision model (folder or hub name), patches:SIZE/PATCH (raw pixels), lite0:SIZE/STRIDE, or conv",
            show_default=False,
        ),
    ],
    llm: Annotated[
        str, typer.Option(help="a Hugging Face causal language model (folder or hub name), FILE.gguf, or smollm2", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="folder for the model", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="seed of the connector's random weights")] = 0,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="precision of the weights on disk")] = "float32",
    chat_template: Annotated[
        Path | None, typer.Option(help="file with a chat template (Jinja), for a language model without one", show_default=False)
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Join a vision encoder and a language model by a new connector into a LLaVA model, ready to be trained."""
    from theodolite.commands.build import build_model

    for line in build_model(encoder, llm, out, seed=seed, dtype=dtype, chat_template=chat_template, overwrite=overwrite):
        print_line(line)
    print_line(f"model: {out}")
