"""Writes docs/reference/cli.md from the Typer application; `--check` writes nothing and fails if the page differs.

`python scripts/describe_cli.py`. Needs the Typer that constraints.txt pins.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from typer.main import get_command

from theodolite.cli import app

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reference" / "cli.md"
INTRODUCTION = """# Command line

Written by `python scripts/describe_cli.py` from the commands themselves, and compared with them by a test.

`theodolite COMMAND --help` prints the same. A command ends with status 0, with 2 and one line where input cannot be used or the
machine fails (its disk, memory or device), and with 130 after Ctrl-C and 143 after SIGTERM; `study` ends with 2 if a run failed,
`manifest check` with 1 if a row is faulty.
"""
# What an option takes, by its Python type.
METAVARS = {str: "TEXT", int: "INTEGER", float: "NUMBER", Path: "PATH"}


def document() -> str:
    """The whole page: an overview, then a section for each command."""
    commands = list(commands_of(get_command(app), "theodolite"))
    overview = ["| command | what it does |", "|---|---|"]
    overview += [f"| [`{name}`](#{anchor(name)}) | {cell(first_sentence(command.help))} |" for name, command in commands]
    return "\n\n".join([INTRODUCTION.rstrip(), "\n".join(overview), *(section(name, command) for name, command in commands)]) + "\n"


def commands_of(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command with its full name, in the order of the help; groups are followed, not listed."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands_of(command, f"{path} {name}")
        elif not command.hidden:
            yield f"{path} {name}", command


def section(name: str, command: Any) -> str:
    """Usage, what the command does, its arguments and its options."""
    arguments = [each for each in command.params if not each.opts[0].startswith("-")]
    options = [each for each in command.params if each.opts[0].startswith("-")]
    usage = " ".join([name, *(placeholder(each) for each in arguments), *(["[OPTIONS]"] if options else [])])
    parts = [f"## {name}", f"```\n{usage}\n```", " ".join(str(command.help).split())]
    if arguments:
        parts.append(table("argument", [(f"`{placeholder(each)}`", each.help or "") for each in arguments]))
    if options:
        parts.append(table("option", [(f"`{flag(each)}`", meaning(each)) for each in options]))
    return "\n\n".join(parts)


def table(kind: str, rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join([f"| {kind} | meaning |", "|---|---|", *(f"| {cell(left)} | {cell(right)} |" for left, right in rows)])


def placeholder(argument: Any) -> str:
    """An argument as the usage line shows it."""
    name = argument.metavar or str(argument.name).upper()
    return f"{name}..." if argument.nargs == -1 or argument.multiple else name


def flag(option: Any) -> str:
    """An option with what it takes."""
    names = " / ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {option.metavar or takes(option.type_descriptor.annotation)}"


def takes(annotation: Any) -> str:
    """What an option's value is: a word for its type, or its choices."""
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    if get_origin(annotation) in (list, tuple):
        return takes(get_args(annotation)[0])
    return METAVARS.get(annotation, "TEXT")


def meaning(option: Any) -> str:
    """The option's help, with its default, and whether it is needed or may be repeated."""
    notes = []
    if option.required:
        notes.append("needed")
    if option.multiple:
        notes.append("may be repeated")
    if option.default not in (None, False, (), []) and not option.is_flag and option.show_default is True:
        notes.append(f"default: {option.default}")
    return "; ".join([part for part in (option.help or "", *notes) if part])


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return " ".join(text.split()).split(". ")[0].rstrip(".")


def cell(text: str) -> str:
    """Text that a table's cell can hold."""
    return " ".join(text.split()).replace("|", "\\|")


def anchor(heading: str) -> str:
    """The anchor that the site gives to a heading."""
    return heading.replace(" ", "-")


def main(arguments: Sequence[str]) -> int:
    """0 if all is well, 1 if the page differs under `--check`, 2 for an unknown option."""
    unknown = [argument for argument in arguments if argument != "--check"]
    if unknown:
        print(f"{unknown[0]!r} is no option; there is --check", file=sys.stderr)
        return 2
    if "--check" not in arguments:
        DOCUMENT.write_text(document(), encoding="utf-8")
        return 0
    if DOCUMENT.exists() and DOCUMENT.read_text(encoding="utf-8") == document():
        return 0
    print(f"{DOCUMENT} is not what the commands say; run python scripts/describe_cli.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
