"""Errors about unusable input. The command line prints the message and exits with status 2, without a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class BadInput(ValueError):
    """Input that cannot be used; the message names what was given, what was expected, and what to change."""


class UnknownName(BadInput):
    """A name that does not exist; the message lists those that do, and asks whether the one most like it was meant."""

    def __init__(self, kind: str, name: str, names: tuple[str, ...]) -> None:
        from difflib import get_close_matches

        near = get_close_matches(name, names, 1) if len(name) < 200 else []  # the comparison takes the square of the length
        super().__init__(f"no {kind} is called {name!r}; there is {', '.join(names)}{f'; did you mean {near[0]}?' if near else ''}")


def first_fault(error: ValidationError, whole: str = "the file") -> str:
    """Place and message of the first fault of a validation error; `whole` is the place of a fault that is in no field."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


class Interrupted(KeyboardInterrupt):
    """A run was stopped by a signal (its number is `signum`); the message says what is kept and where the run goes on."""

    def __init__(self, signum: int, message: str = "") -> None:
        super().__init__(message)
        self.signum = signum
