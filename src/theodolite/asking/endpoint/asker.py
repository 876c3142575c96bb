"""Asking a model behind an OpenAI-compatible chat endpoint; docs/endpoint.md says what its answers mean.

Where the server tells log-probabilities, an answer is the distribution of the first token over the options' letters: not the same quantity
as a local model's probabilities of whole choices. Else it is read from the text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8

from theodolite.asking.answer import UNANSWERED, Answer, Question
from theodolite.asking.endpoint.cache import ResponseCache, content_key
from theodolite.asking.endpoint.capabilities import Reading, detect_capabilities, reading_of, request_of, top_of
from theodolite.asking.endpoint.channel import Channel, EndpointSettings, Refused
from theodolite.asking.endpoint.prompt import (
    PROMPT_SHA256,
    messages_of,
    picture_digest,
    picture_tokens,
    prompt_of,
    text_tokens,
)
from theodolite.asking.endpoint.reading import answer_of_logprobs, answer_of_text
from theodolite.records.endpoint import Capabilities, EndpointConfig
from theodolite.records.progress import Progress, silent

Pictures = UInt8[np.ndarray, "picture height width 3"]
MILLION = 1_000_000
UNKNOWN = Capabilities(logprobs=0, seed=True, temperature=True, limit_name="max_tokens")

# What servers answer where one picture or question is too much for them, or not to be answered.
OF_ONE_QUESTION = (400, 413, 422)


@dataclass(frozen=True)
class CostEstimate:
    """What a round of questions will take: requests left after the cache, and tokens by the rules of `endpoint_prompt`."""

    num_questions: int
    num_requests: int
    tokens_in: int
    tokens_out: int

    def __add__(self, other: CostEstimate) -> CostEstimate:
        return CostEstimate(
            self.num_questions + other.num_questions,
            self.num_requests + other.num_requests,
            self.tokens_in + other.tokens_in,
            self.tokens_out + other.tokens_out,
        )

    def words(self, price_in: float | None = None, price_out: float | None = None) -> str:
        """In a line; prices are USD for a million tokens."""
        line = (
            f"{self.num_questions:,} questions, {self.num_requests:,} requests after the cache, about {self.tokens_in:,} tokens sent "
            f"and at most {self.tokens_out:,} received"
        )
        if price_in is None and price_out is None:
            return line
        price = (self.tokens_in * (price_in or 0.0) + self.tokens_out * (price_out or 0.0)) / MILLION
        return f"{line}: about {price:,.2f} USD"


@dataclass(frozen=True, eq=False)
class _Job:
    """A request that is to be sent, if the cache does not hold its answer."""

    key: str
    prompt: str
    picture: int


class EndpointAsker:
    """Answers of a model behind an endpoint, as the `Asker` contract has it; several requests run at once.

    What the server offers is found out before the first question. `announce` is told what a round will take before it starts. Answers do
    not depend on the order in which they arrive. Every answer goes into the cache at once; the first failure for good ends the round, and
    what was answered stays. Raises `BadInput` then, and where the `openai` package is missing.
    """

    def __init__(
        self, settings: EndpointSettings, cache: ResponseCache, announce: Callable[[CostEstimate], None] = lambda estimate: None
    ) -> None:
        self.settings, self.cache, self.announce = settings, cache, announce
        self.channel = Channel(settings)
        self.notices: list[str] = []
        self._offers: Capabilities | None = None
        self._served: set[str] = set()

    @property
    def offers(self) -> Capabilities:
        """What the server offers."""
        return self.detect()

    def detect(self) -> Capabilities:
        """Finds out what the server offers: from the cache, else by asking it."""
        if self._offers is None:
            self._offers = stored_offers(self.settings, self.cache)
        if self._offers is None:
            found = detect_capabilities(self.channel)
            self._offers = Capabilities.model_validate(self.cache.put(_offers_key(self.settings), found.model_dump(mode="json")))
        return self._offers

    def ask(self, pictures: Pictures, asks: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        """Answers in the order of `asks`; unanswered where what came back says no choice."""
        offers = self.offers
        reading = reading_of(self.settings, offers)
        jobs = jobs_of(self.settings, offers, reading, pictures, asks)
        found = self.cache.find(list(dict.fromkeys(job.key for job in jobs)))
        todo = list({job.key: job for job in jobs if job.key not in found}.values())
        self.announce(estimate(self.settings, reading, pictures, jobs, todo))
        waiting = {job.key: 0 for job in todo}
        for job in jobs:
            if job.key in waiting:
                waiting[job.key] += 1
        done = len(jobs) - sum(waiting.values())
        progress(done, len(jobs))
        for key, response in self._fetch(offers, reading, pictures, todo):
            found[key] = response
            done += waiting[key]
            progress(done, len(jobs))
        self.notices.append(f"{len(asks):,} questions: {len(todo):,} asked of the endpoint, the rest known from the cache or asked twice")
        responses = [found[job.key] for job in jobs]
        if refused := [found[key]["refused"] for key in waiting if "refused" in found[key]]:
            self.notices.append(f"{len(refused):,} of them the endpoint refused, which counts as unanswered; it said: {refused[0]}")
        self._served |= {response["model"] for response in responses if response["model"]}
        return [_read(reading, response, ask) for response, ask in zip(responses, asks, strict=True)]

    def describe(self) -> EndpointConfig:
        """What a record says of the endpoint; nothing secret."""
        offers = self.offers
        return EndpointConfig(
            base_url=self.settings.public_url,
            name=self.settings.model,
            served_as=tuple(sorted(self._served)),
            offers=offers,
            answers=reading_of(self.settings, offers),
            prompt_sha256=PROMPT_SHA256,
            picture_size=self.settings.picture_size,
            max_tokens=1 if reading_of(self.settings, offers) == "logprobs" else self.settings.max_tokens,
            seed=self.settings.seed if offers.seed else None,
        )

    def _fetch(self, offers: Capabilities, reading: Reading, pictures: Pictures, todo: Sequence[_Job]) -> Iterator[tuple[str, Any]]:
        """Keys and responses as they arrive, each in the cache already."""

        failures: list[BaseException] = []

        def fetch(job: _Job) -> tuple[str, Any]:
            try:
                return answer(job)
            except BaseException as error:
                failures.append(error)  # the first is the cause; the others only stop because of it
                self.channel.stop()  # here, since this thread would take the next question before anybody hears of it
                raise

        def answer(job: _Job) -> tuple[str, Any]:
            request = request_of(self.settings, offers, reading, messages_of(job.prompt, pictures[job.picture]))
            try:
                response = _kept(self.channel.send(request))
            except Refused as error:
                if error.status not in OF_ONE_QUESTION:
                    raise
                # The server took the probe of this form, so it is this picture or these words that it will not answer.
                response = {"text": None, "top": None, "model": None, "refused": f"HTTP {error.status}: {error.said}"}
            return job.key, self.cache.put(job.key, response)

        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            try:
                for future in as_completed([pool.submit(fetch, job) for job in todo]):
                    if future.exception() is not None:
                        raise failures[0]
                    yield future.result()
            except BaseException:  # Ctrl-C, too: requests on their way are kept, and no more are sent
                self.channel.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class CostAsker:
    """Asks nothing and leaves everything unanswered, but tells what it would take: for trial runs."""

    def __init__(self, settings: EndpointSettings, cache: ResponseCache, announce: Callable[[CostEstimate], None]) -> None:
        self.settings, self.cache, self.announce = settings, cache, announce
        self._offers = stored_offers(settings, cache)

    def ask(self, pictures: Pictures, asks: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        """No answers. Where the server was never asked, nothing is in the cache, and answers are taken to be text: the dearer way."""
        offers = self._offers or UNKNOWN
        reading = reading_of(self.settings, offers) if self._offers else "text"
        jobs = jobs_of(self.settings, offers, reading, pictures, asks)
        found = self.cache.find(list(dict.fromkeys(job.key for job in jobs)))
        todo = list({job.key: job for job in jobs if job.key not in found}.values())
        self.announce(estimate(self.settings, reading, pictures, jobs, todo))
        progress(len(asks), len(asks))
        return [UNANSWERED] * len(asks)

    def describe(self) -> EndpointConfig:
        """Of an endpoint that nobody has asked."""
        return EndpointConfig(
            base_url=self.settings.public_url,
            name=self.settings.model,
            served_as=(),
            offers=self._offers or UNKNOWN,
            answers="text",
            prompt_sha256=PROMPT_SHA256,
            picture_size=self.settings.picture_size,
            max_tokens=self.settings.max_tokens,
            seed=None,
        )


def jobs_of(settings: EndpointSettings, offers: Capabilities, reading: Reading, pictures: Pictures, asks: Sequence[Question]) -> list[_Job]:
    """A job for each ask, with a key over everything that is sent: where, to whom, in which words, about which pixels."""
    digests: dict[int, str] = {}
    jobs = []
    for ask in asks:
        if ask.picture not in digests:
            digests[ask.picture] = picture_digest(pictures[ask.picture])
        prompt = prompt_of(ask.question, ask.choices)
        content = request_of(settings, offers, reading, [{"text": prompt, "picture": digests[ask.picture]}])
        jobs.append(_Job(content_key([settings.public_url, content]), prompt, ask.picture))
    return jobs


def estimate(settings: EndpointSettings, reading: Reading, pictures: Pictures, jobs: Sequence[_Job], todo: Sequence[_Job]) -> CostEstimate:
    """What the jobs to do will take."""
    of_picture = picture_tokens(*pictures.shape[1:3])
    return CostEstimate(
        num_questions=len(jobs),
        num_requests=len(todo),
        tokens_in=sum(text_tokens(job.prompt) + of_picture for job in todo),
        tokens_out=len(todo) * (1 if reading == "logprobs" else settings.max_tokens),
    )


def stored_offers(settings: EndpointSettings, cache: ResponseCache) -> Capabilities | None:
    """What the server offered when it was first asked; None where the cache knows nothing of it."""
    key = _offers_key(settings)
    found = cache.find([key])
    return Capabilities.model_validate(found[key]) if found else None


def _offers_key(settings: EndpointSettings) -> str:
    return content_key(["offers", settings.public_url, settings.model, settings.answers == "text"])


def _kept(response: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a response: text, likeliest first tokens, and the model's name as the server has it."""
    message = response["choices"][0].get("message")
    text = message.get("content") if isinstance(message, dict) else None
    model = response.get("model")
    return {
        "text": text if isinstance(text, str) else None,
        "top": top_of(response),
        "model": model if isinstance(model, str) else None,
    }


def _read(reading: Reading, response: dict[str, Any], ask: Question) -> Answer:
    if reading == "logprobs":
        return UNANSWERED if response["top"] is None else answer_of_logprobs(response["top"], len(ask.choices))
    return answer_of_text(response["text"], ask.choices)
