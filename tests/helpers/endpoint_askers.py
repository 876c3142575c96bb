"""Askers of the loopback endpoint, and the questions that tests put to it."""

from __future__ import annotations

import numpy as np

from helpers.endpoint_server import Server
from helpers.tiny_llava import WORLD
from theodolite.asking.answer import Question
from theodolite.asking.endpoint.asker import EndpointAsker
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.asking.endpoint.channel import EndpointSettings

PICTURES = WORLD.render(WORLD.sample(6, np.random.default_rng(3)), 32)
COLOURS = ("red", "light red", "blue", "dark green")
ASKS = [Question(picture, question, COLOURS) for picture in range(6) for question in ("which colour is it?", "what colour does it have?")]
QUICK = {
    "picture_size": 32,
    "first_wait_s": 0.002,
    "longest_wait_s": 0.01,
    "retries": 3,
    "timeout_s": 5.0,
    "concurrency": 3,
    "prompt": "letters",
}


def asker_at(server: Server, cache: ResponseCache | None = None, **changes: object) -> EndpointAsker:
    settings = EndpointSettings(server.url, "org/tiny", **{**QUICK, **changes})  # type: ignore[arg-type]
    return EndpointAsker(settings, ResponseCache(None) if cache is None else cache)


def questions(server: Server) -> int:
    """Requests about our questions, not those that find out what the server offers."""
    return sum("colour" in asked.question for asked in server.asked)
