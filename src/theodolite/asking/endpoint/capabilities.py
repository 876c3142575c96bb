"""Capabilities of a server, detected by a few requests with a blank picture before the first question."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from theodolite.asking.endpoint.channel import Channel, EndpointSettings, Exhausted, Refused
from theodolite.asking.endpoint.messages import messages_of
from theodolite.asking.endpoint.reading import answer_of_logprobs
from theodolite.asking.prompts import write_prompt
from theodolite.records.endpoint import Capabilities
from theodolite.records.errors import BadInput

BLANK_SIDE = 224  # of the blank picture, where pictures have sizes of their own
MOST_LOGPROBS = (20, 5)  # known limits of servers
MOST_SERVER_ERRORS = 3  # from the first try on, by which a server shows that it breaks on a field
SHAPE_OF_REQUEST = (400, 415, 422, 501)  # statuses that may refuse a field of the request, rather than the model or the key
# With letters, whatever the style of the survey's prompts: only a first token that is a letter shows that letters can be scored.
PROMPT = write_prompt("letters", "Is this picture grey or red?", ("grey", "red")).text
Reading = Literal["logprobs", "text"]
LEAST_LETTERS = 0.5  # probability of the letters as first token, from which they are scored; below it, the model begins with something else


def request_of(settings: EndpointSettings, capabilities: Capabilities, reading: Reading, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A chat request with the fields that the server takes. Scoring letters needs one token only."""
    request: dict[str, Any] = {"model": settings.model, "messages": messages}
    request[capabilities.limit_name] = 1 if reading == "logprobs" else settings.max_tokens
    if capabilities.temperature:
        request["temperature"] = 0.0
    if capabilities.seed:
        request["seed"] = settings.seed
    if reading == "logprobs":
        request |= {"logprobs": True, "top_logprobs": capabilities.logprobs}
    return request


def top_of(response: Mapping[str, Any]) -> dict[str, float] | None:
    """Log-probabilities in nats of the likeliest first tokens; None if the response has none."""
    logprobs = response["choices"][0].get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    likeliest = content[0].get("top_logprobs")
    top: dict[str, float] = {}
    for entry in [*(likeliest if isinstance(likeliest, list) else []), content[0]]:
        if isinstance(entry, dict) and isinstance(entry.get("token"), str) and isinstance(entry.get("logprob"), int | float):
            with suppress(OverflowError):  # a whole number of hundreds of digits
                top.setdefault(entry["token"], float(entry["logprob"]))
    return top or None


def detect_capabilities(channel: Channel) -> Capabilities:
    """The capabilities of the server behind a channel. Raises `BadInput` if it takes no pictures, or refuses the model."""
    trial = _Trial(channel)
    most = MOST_LOGPROBS[0] if channel.settings.may_score_letters else 0
    everything = Capabilities(logprobs=most, seed=True, temperature=True, limit_name="max_tokens")
    response = trial.response(everything)
    if response is not None:
        return everything if _scores_letters(response, channel.settings) else everything.model_copy(update={"logprobs": 0})
    capabilities = trial.least()
    for feature in ("temperature", "seed"):
        more = capabilities.model_copy(update={feature: True})
        capabilities = more if trial.response(more) is not None else capabilities
    for number in MOST_LOGPROBS if most else ():
        more = capabilities.model_copy(update={"logprobs": number})
        response = trial.response(more)
        if response is not None:
            return more if _scores_letters(response, channel.settings) else capabilities
    return capabilities


def send_trial(channel: Channel, capabilities: Capabilities, retries: int | None = None) -> dict[str, Any]:
    """The server's response to a question about a blank picture. Raises `Refused`, `Exhausted`."""
    return _Trial(channel)._send(capabilities, True, retries)


def _scores_letters(response: Mapping[str, Any], settings: EndpointSettings) -> bool:
    """Whether the first token is likelier an option letter than not; a model that reasons first, or begins with words, is read as text.

    Where log-probabilities are asked for by name, it is enough that some likely first token is a letter.
    """
    top = top_of(response)
    if top is None:
        return False
    answer = answer_of_logprobs(top, 2)
    least = 0.0 if settings.answers == "logprobs" else LEAST_LETTERS
    return answer.outside is not None and 1.0 - answer.outside > least


def reading_of(settings: EndpointSettings, capabilities: Capabilities) -> Reading:
    """How answers are read. Raises `BadInput` if log-probabilities are required and the server returns none."""
    if settings.answers == "logprobs" and not capabilities.logprobs:
        raise BadInput(f"{settings.public_url} returns no log-probabilities of option letters; leave --answers out, or give --answers text")
    return "logprobs" if capabilities.logprobs and settings.may_score_letters else "text"


@dataclass(frozen=True, eq=False)
class _Trial:
    """One request about a blank picture."""

    channel: Channel

    def response(self, capabilities: Capabilities, *, pictured: bool = True) -> dict[str, Any] | None:
        """The server's response; None if it refuses the form of the request. Raises `Refused` on any other refusal."""
        try:
            # Some servers fail on an unknown field instead of refusing it. Any other trouble, or one that comes and goes, does not say what
            # the server takes: to go on in a plainer form would change how a whole survey is read.
            plain = not (capabilities.logprobs or capabilities.seed or capabilities.temperature)
            return self._send(capabilities, pictured, most_server_errors=None if plain else MOST_SERVER_ERRORS)
        except Refused as error:
            if error.status not in SHAPE_OF_REQUEST:
                raise
            return None
        except Exhausted as error:
            if plain or not error.is_server_error:
                raise
            return None

    def least(self) -> Capabilities:
        """The plainest request that the server takes. Raises `BadInput` if there is none."""
        plain = Capabilities(logprobs=0, seed=False, temperature=False, limit_name="max_tokens")
        for capabilities in (plain, plain.model_copy(update={"limit_name": "max_completion_tokens"})):
            if self.response(capabilities) is not None:
                return capabilities
        for capabilities in (plain, plain.model_copy(update={"limit_name": "max_completion_tokens"})):
            if self.response(capabilities, pictured=False) is not None:
                reason = self._refusal(capabilities)
                raise BadInput(f"{self.channel.settings.model!r} takes text but no pictures, so it cannot be surveyed; reason: {reason}")
        self._send(plain, True)  # refused once more, with the server's reason
        raise BadInput(f"{self.channel.settings.public_url} takes no request of any form; check the address and the model")

    def _refusal(self, capabilities: Capabilities) -> str:
        try:
            self._send(capabilities, True)
        except Refused as error:
            return error.reason
        return "none"

    def _send(
        self, capabilities: Capabilities, pictured: bool, retries: int | None = None, most_server_errors: int | None = None
    ) -> dict[str, Any]:
        settings = self.channel.settings
        side = settings.picture_size or BLANK_SIDE
        picture = np.full((side, side, 3), 128, dtype=np.uint8)
        reading: Reading = "logprobs" if capabilities.logprobs else "text"
        messages = messages_of(PROMPT, picture if pictured else None)
        return self.channel.send(request_of(settings, capabilities, reading, messages), retries, most_server_errors)
