"""What a person gave that cannot be used. The command line prints the message and ends with status 2, without a traceback."""


class BadInput(ValueError):
    """Input that cannot be used; the message says what was found, what was expected, and what to change."""


class UnknownName(BadInput):
    """A name that does not exist; the message lists those that do."""

    def __init__(self, what: str, found: str, known: tuple[str, ...]) -> None:
        super().__init__(f"no {what} is called {found!r}; there is {', '.join(known)}")
