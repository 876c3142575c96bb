"""What a server takes and gives, found out by a few requests with a blank picture before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from theodolite.asking.endpoint.channel import Channel, EndpointSettings, Exhausted, Refused
from theodolite.asking.endpoint.prompt import messages_of, prompt_of
from theodolite.asking.endpoint.reading import answer_of_logprobs
from theodolite.records.endpoint import Capabilities
from theodolite.records.errors import BadInput

MOST_LOGPROBS = (20, 5)  # what servers are known to give at most
SHAPE_OF_REQUEST = (400, 415, 422, 501)  # statuses that may speak of a field, not of the model or the key
PROMPT = prompt_of("Is this picture grey or red?", ("grey", "red"))
Reading = Literal["logprobs", "text"]


def request_of(settings: EndpointSettings, offers: Capabilities, reading: Reading, messages: list[dict[str, Any]]) -> dict[str, Any]:
    """A chat request in the words that the server takes. Where letters are scored, one token is all that is needed."""
    request: dict[str, Any] = {"model": settings.model, "messages": messages}
    request[offers.limit_name] = 1 if reading == "logprobs" else settings.max_tokens
    if offers.temperature:
        request["temperature"] = 0.0
    if offers.seed:
        request["seed"] = settings.seed
    if reading == "logprobs":
        request |= {"logprobs": True, "top_logprobs": offers.logprobs}
    return request


def top_of(response: Mapping[str, Any]) -> dict[str, float] | None:
    """Log-probabilities in nats of the likeliest first tokens; None where the answer bears none."""
    held = response["choices"][0].get("logprobs")
    content = held.get("content") if isinstance(held, dict) else None
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return None
    likeliest = content[0].get("top_logprobs")
    found: dict[str, float] = {}
    for entry in [*(likeliest if isinstance(likeliest, list) else []), content[0]]:
        if isinstance(entry, dict) and isinstance(entry.get("token"), str) and isinstance(entry.get("logprob"), int | float):
            found.setdefault(entry["token"], float(entry["logprob"]))
    return found or None


def detect_capabilities(channel: Channel) -> Capabilities:
    """What the server behind a channel offers. Raises `BadInput` if it takes no pictures, or refuses the model."""
    trial = _Trial(channel)
    most = MOST_LOGPROBS[0] if channel.settings.answers != "text" else 0
    everything = Capabilities(logprobs=most, seed=True, temperature=True, limit_name="max_tokens")
    response = trial.response(everything)
    if response is not None:
        return everything if _tells_letters(response) else everything.model_copy(update={"logprobs": 0})
    offers = trial.least()
    for feature in ("temperature", "seed"):
        more = offers.model_copy(update={feature: True})
        offers = more if trial.response(more) is not None else offers
    for number in MOST_LOGPROBS if most else ():
        more = offers.model_copy(update={"logprobs": number})
        response = trial.response(more)
        if response is not None:
            return more if _tells_letters(response) else offers
    return offers


def _tells_letters(response: Mapping[str, Any]) -> bool:
    """Whether some likely first token is an option letter: a model that thinks first, or begins with words, is read as text."""
    top = top_of(response)
    return top is not None and answer_of_logprobs(top, 2).probabilities is not None


def reading_of(settings: EndpointSettings, offers: Capabilities) -> Reading:
    """How answers are read. Raises `BadInput` if log-probabilities are wanted where there are none."""
    if settings.answers == "logprobs" and not offers.logprobs:
        raise BadInput(f"{settings.public_url} tells no log-probabilities of option letters; leave --answers out, or give --answers text")
    return "logprobs" if offers.logprobs and settings.answers != "text" else "text"


@dataclass(frozen=True, eq=False)
class _Trial:
    """One request about a blank picture."""

    channel: Channel

    def response(self, offers: Capabilities, *, pictured: bool = True) -> dict[str, Any] | None:
        """What the server answers; None where it refuses the request's form. Raises `Refused` where it refuses anything else."""
        try:
            # Some servers break on a field that they do not know, instead of refusing it; the plainest form gets all its tries.
            plain = not (offers.logprobs or offers.seed or offers.temperature)
            return self._send(offers, pictured, None if plain else 1)
        except Refused as error:
            if error.status not in SHAPE_OF_REQUEST:
                raise
            return None
        except Exhausted:
            if plain:
                raise
            return None

    def least(self) -> Capabilities:
        """The plainest request that the server takes. Raises `BadInput` if there is none."""
        plain = Capabilities(logprobs=0, seed=False, temperature=False, limit_name="max_tokens")
        for offers in (plain, plain.model_copy(update={"limit_name": "max_completion_tokens"})):
            if self.response(offers) is not None:
                return offers
        for offers in (plain, plain.model_copy(update={"limit_name": "max_completion_tokens"})):
            if self.response(offers, pictured=False) is not None:
                said = self._refusal(offers)
                raise BadInput(f"{self.channel.settings.model!r} takes text but no pictures, so it cannot be surveyed; it says: {said}")
        self._send(plain, True)  # refused once more, which says why
        raise BadInput(f"{self.channel.settings.public_url} takes no request")

    def _refusal(self, offers: Capabilities) -> str:
        try:
            self._send(offers, True)
        except Refused as error:
            return error.said
        return "nothing"

    def _send(self, offers: Capabilities, pictured: bool, retries: int | None = None) -> dict[str, Any]:
        settings = self.channel.settings
        picture = np.full((settings.picture_size, settings.picture_size, 3), 128, dtype=np.uint8)
        reading: Reading = "logprobs" if offers.logprobs else "text"
        return self.channel.send(request_of(settings, offers, reading, messages_of(PROMPT, picture if pictured else None)), retries)
