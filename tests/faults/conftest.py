"""What the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from helpers.disturbed_commands import COMMANDS, endpoint
from helpers.disturbed_runs import Undisturbed
from helpers.endpoint_server import Server, by_pixels, serving


@pytest.fixture
def every(request: pytest.FixtureRequest) -> bool:
    """Whether a fault is tried at every place, not at some: with --exhaustive."""
    return bool(request.config.getoption("--exhaustive"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(by_pixels) as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Undisturbed]:
    """Undisturbed runs by command, made when they are needed."""

    class Runs(dict[str, Undisturbed]):
        def __missing__(self, name: str) -> Undisturbed:
            home = tmp_path_factory.mktemp(name)
            self[name] = Undisturbed.of(endpoint(home, server.url) if name == "endpoint" else COMMANDS[name](home), home / "whole")
            return self[name]

    return Runs()
