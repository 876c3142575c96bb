"""The Typer application, and the option types that several commands share."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from theodolite.cli.names import known_world_or_data
from theodolite.records.errors import BadInput


class WholeHelp(TyperGroup):
    """A group whose help lists each command with all of its summary, which Click cuts off."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for command in self.commands.values():
            command.short_help = command.short_help or command.help
        super().format_commands(ctx, formatter)


app = typer.Typer(
    cls=WholeHelp,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its panels cut long words off
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="Surveys vision-language models: which factors of a picture their answers follow, which they only guess from correlated ones, "
    "and how the training questions decide it.",
)

AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
WorldOrData = Annotated[
    str,
    typer.Argument(
        metavar="WORLD|DATA",
        help="shapes, easy_vqa, or a Parquet file of annotated examples",
        show_default=False,
        callback=known_world_or_data,
    ),
]
Strength = Annotated[float | None, typer.Option(help="how often shape sets colour in a world, 0 (independent, the default) to 1")]
Factors = Annotated[
    str | None, typer.Option(help="data: columns that are factors, separated by commas (default: all but query, answer and example)")
]
Seed = Annotated[int, typer.Option(min=0, help="seed of all random draws")]
Csv = Annotated[Path | None, typer.Option("--csv", metavar="FILE", help="also write the cells as CSV to this file", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace an existing output")]


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"theodolite {version('theodolite')}")
        raise typer.Exit
    return wanted


@app.callback()
def main_options(
    show_version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version")] = False,
) -> None:
    """Options of the program itself."""


def refuse_file(out: Path | None, kind: str, *, overwrite: bool) -> None:
    """Raises `BadInput` if `out` is a folder, or an existing file that may not be overwritten. `kind` names the content, such as HTML."""
    if out is not None and out.is_dir():
        raise BadInput(f"{out} is a folder; give the name of a file for the {kind} in it")
    if out is not None and out.exists() and not overwrite:
        raise BadInput(f"{out} exists; give another name, or --overwrite to replace it")
