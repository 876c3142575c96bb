"""Answers of a model behind an OpenAI-compatible chat endpoint (docs/howto/endpoint.md).

Where the prompt has letters and the server returns log-probabilities, an answer is the distribution of the first token over the letters,
which differs from a local model's probabilities of whole answers. Otherwise the choice is read from the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from theodolite.asking.answer import UNANSWERED, Answer, Question
from theodolite.asking.endpoint.cache import INCOMPLETE, ResponseCache, content_key
from theodolite.asking.endpoint.capabilities import Reading, detect_capabilities, reading_of, request_of, top_of
from theodolite.asking.endpoint.channel import Channel, EndpointSettings, Refused
from theodolite.asking.endpoint.messages import messages_of, picture_digest, picture_tokens, text_tokens
from theodolite.asking.endpoint.reading import answer_of_logprobs, answer_of_text
from theodolite.asking.endpoint.versions import ServerVersions, Version, versioned_key
from theodolite.asking.pictures import PicturePool, Pictures
from theodolite.asking.prompts import prompt_hash, write_prompt
from theodolite.asking.reading import default_workers, read_ahead
from theodolite.records.asking import PromptStyle
from theodolite.records.endpoint import Capabilities, EndpointConfig
from theodolite.records.progress import Progress, silent
from theodolite.worlds.decoding import strict_pillow

MILLION = 1_000_000
UNKNOWN = Capabilities(logprobs=0, seed=True, temperature=True, limit_name="max_tokens")

# HTTP statuses by which servers refuse a single picture or question (its size or content).
OF_ONE_QUESTION = (400, 413, 422)
CUT_OFF = "length"  # finish_reason of an answer that reached its limit of tokens


@dataclass(frozen=True)
class CostEstimate:
    """Cost of a batch of questions: requests not in the cache, and tokens as estimated in `prompt`."""

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
        """The estimate in one line; prices are USD per million tokens."""
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
    """One request, to be sent unless its answer is in the cache; its key is without the server's version."""

    key: str
    prompt: str
    picture: int
    question: Question


class EndpointAsker:
    """An `Asker` of a model behind an endpoint; several requests run at once.

    The server's capabilities and version are found before the first question. `announce` gets the cost of a batch before it starts.
    Answers do not depend on their order of arrival, and each is cached at once. Empty and cut-off answers are cached too, and asked for
    again by the next asker. The first permanent failure ends the batch and raises `BadInput`; answers so far stay cached. Raises
    `BadInput` if the `openai` package is missing.
    """

    def __init__(
        self, settings: EndpointSettings, cache: ResponseCache, announce: Callable[[CostEstimate], None] = lambda estimate: None
    ) -> None:
        self.settings, self.cache, self.announce = settings, cache, announce
        self.channel = Channel(settings)
        self.notices: list[str] = []
        self._capabilities: Capabilities | None = None
        self.versions = ServerVersions(settings, cache)
        self._answered_by: set[Version] = set()
        self._incomplete: set[str] = set()  # keys of this session's empty and cut-off answers, which are not asked for twice in it

    def identify(self) -> None:
        """Finds the server's version, by one request about a blank picture."""
        notice = self.versions.identify(self.channel, self.detect())
        if notice is not None:
            self.notices.append(notice)

    def detect(self) -> Capabilities:
        """The server's capabilities, from the cache, else by a few requests with a blank picture."""
        if self._capabilities is None:
            self._capabilities = stored_capabilities(self.settings, self.cache)
        if self._capabilities is None:
            detected = detect_capabilities(self.channel).model_dump(mode="json")
            self._capabilities = Capabilities.model_validate(self.cache.put(_capabilities_key(self.settings), detected))
        return self._capabilities

    def ask(self, pictures: Pictures, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        """Answers in the order of `questions`; unanswered where the response gives no choice."""
        capabilities = self.detect()
        reading = reading_of(self.settings, capabilities)
        self.identify()
        jobs = jobs_of(self.settings, capabilities, reading, pictures, questions)
        by_key, todo = _cached(self.cache, jobs, self.versions.current, self._incomplete)
        self.announce(estimate(self.settings, reading, pictures, jobs, todo))
        waiting = {job.key: 0 for job in todo}
        for job in jobs:
            if job.key in waiting:
                waiting[job.key] += 1
        done = len(jobs) - sum(waiting.values())
        progress(done, len(jobs))
        for key, response in self._fetch(capabilities, reading, pictures, todo):
            by_key[key] = response
            self.versions.meet(_version(response, self.versions.current[0]))
            if response.get(INCOMPLETE):
                self._incomplete.add(key)
            done += waiting[key]
            progress(done, len(jobs))
        self.notices.append(f"{len(questions):,} questions: {len(todo):,} sent to the endpoint, the rest in the cache or repeated")
        responses = [by_key[job.key] for job in jobs]
        self.notices += _notices([by_key[key] for key in waiting])
        self._answered_by |= {Version(response["model"], response.get("fingerprint")) for response in responses}
        style = self.settings.prompt
        return [_answer_of(reading, style, response, question) for response, question in zip(responses, questions, strict=True)]

    def describe(self) -> EndpointConfig:
        """The endpoint's entry in a record; nothing secret."""
        capabilities = self.detect()
        reading = reading_of(self.settings, capabilities)
        return EndpointConfig(
            base_url=self.settings.public_url,
            name=self.settings.model,
            served_as=tuple(sorted({version.model for version in self._answered_by if version.model})),
            fingerprints=tuple(sorted({version.fingerprint for version in self._answered_by if version.fingerprint})),
            offers=capabilities,
            answers=reading,
            prompt=self.settings.prompt,
            prompt_sha256=prompt_hash(self.settings.prompt),
            picture_size=self.settings.picture_size,
            max_tokens=1 if reading == "logprobs" else self.settings.max_tokens,
            seed=self.settings.seed if capabilities.seed else None,
        )

    def _fetch(self, capabilities: Capabilities, reading: Reading, pictures: Pictures, todo: Sequence[_Job]) -> Iterator[tuple[str, Any]]:
        """Keys and responses as they arrive, each already cached."""

        failures: list[BaseException] = []

        def fetch(job: _Job) -> tuple[str, Any]:
            try:
                return answer(job)
            except BaseException as error:
                failures.append(error)  # the first is the cause; the others stop because of it
                self.channel.stop()  # in this thread, or it would take the next question before the main thread stops it
                raise

        def answer(job: _Job) -> tuple[str, Any]:
            request = request_of(self.settings, capabilities, reading, messages_of(job.prompt, pictures[job.picture]))
            version = self.versions.current[0]
            try:
                sent = self.channel.send(request)
                version = self.versions.of(sent)
                response = _cached_fields(sent, version)
                if _is_incomplete(reading, self.settings.prompt, response, job.question):
                    response[INCOMPLETE] = True
            except Refused as error:
                if error.status not in OF_ONE_QUESTION:
                    raise
                # Requests of this form passed detection, so the refusal concerns this picture or question.
                response = {"text": None, "top": None, "model": None, "refused": f"HTTP {error.status}: {error.reason}"}
            return job.key, self.cache.put(versioned_key(job.key, version), response)

        with strict_pillow(), ThreadPoolExecutor(self.settings.concurrency) as pool:
            try:
                for future in as_completed([pool.submit(fetch, job) for job in todo]):
                    if future.exception() is not None:
                        raise failures[0]
                    yield future.result()
            except BaseException:  # Ctrl-C, too: answers to requests under way are cached, and no more are sent
                self.channel.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class CostAsker:
    """An `Asker` for dry runs: sends nothing, announces the cost, and leaves every question unanswered."""

    def __init__(self, settings: EndpointSettings, cache: ResponseCache, announce: Callable[[CostEstimate], None]) -> None:
        self.settings, self.cache, self.announce = settings, cache, announce
        self._capabilities = stored_capabilities(settings, cache)
        self._versions = ServerVersions(settings, cache).recall()

    def ask(self, pictures: Pictures, questions: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        """No answers. If the capabilities are not cached, the cost is that of answers as text, the more expensive reading."""
        capabilities = self._capabilities or UNKNOWN
        reading = reading_of(self.settings, capabilities) if self._capabilities else "text"
        jobs = jobs_of(self.settings, capabilities, reading, pictures, questions)
        self.announce(estimate(self.settings, reading, pictures, jobs, _cached(self.cache, jobs, self._versions)[1]))
        progress(len(questions), len(questions))
        return [UNANSWERED] * len(questions)

    def describe(self) -> EndpointConfig:
        """The entry of an endpoint to which nothing was sent."""
        return EndpointConfig(
            base_url=self.settings.public_url,
            name=self.settings.model,
            served_as=(),
            offers=self._capabilities or UNKNOWN,
            answers="text",
            prompt=self.settings.prompt,
            prompt_sha256=prompt_hash(self.settings.prompt),
            picture_size=self.settings.picture_size,
            max_tokens=self.settings.max_tokens,
            seed=None,
        )


def jobs_of(
    settings: EndpointSettings, capabilities: Capabilities, reading: Reading, pictures: Pictures, questions: Sequence[Question]
) -> list[_Job]:
    """A job for each question; its key hashes all that is sent: address, model, settings, prompt and pixels."""
    numbers = dict.fromkeys(question.picture for question in questions)
    if isinstance(pictures, PicturePool):
        digests = dict(read_ahead(pictures, numbers, picture_digest, default_workers()))
    else:
        digests = {number: picture_digest(pictures[number]) for number in numbers}
    jobs = []
    for question in questions:
        prompt = write_prompt(settings.prompt, question.question, question.choices).text
        content = request_of(settings, capabilities, reading, [{"text": prompt, "picture": digests[question.picture]}])
        jobs.append(_Job(content_key([settings.public_url, content]), prompt, question.picture, question))
    return jobs


def _cached(
    cache: ResponseCache, jobs: Sequence[_Job], versions: Sequence[Version], incomplete: Container[str] = ()
) -> tuple[dict[str, Any], list[_Job]]:
    """The cached responses of these versions of the server by key of the job, and the jobs without one, each key once.

    Incomplete responses count only for the keys in `incomplete`. Of several versions' responses the first counts.
    """
    left = {job.key: job for job in jobs}
    by_key: dict[str, Any] = {}
    for version in versions:
        responses = cache.find([versioned_key(key, version) for key in left])
        for key in list(left):
            response = responses.get(versioned_key(key, version))
            if response is not None and (key in incomplete or not response.get(INCOMPLETE)):
                by_key[key] = response
                del left[key]
    return by_key, list(left.values())


def estimate(settings: EndpointSettings, reading: Reading, pictures: Pictures, jobs: Sequence[_Job], todo: Sequence[_Job]) -> CostEstimate:
    """The cost of the jobs in `todo`."""

    def of_picture(number: int) -> int:
        width, height = pictures.given_size(number) if isinstance(pictures, PicturePool) else pictures.shape[2:0:-1]
        return picture_tokens(height, width)

    return CostEstimate(
        num_questions=len(jobs),
        num_requests=len(todo),
        tokens_in=sum(text_tokens(job.prompt) + of_picture(job.picture) for job in todo),
        tokens_out=len(todo) * (1 if reading == "logprobs" else settings.max_tokens),
    )


def stored_capabilities(settings: EndpointSettings, cache: ResponseCache) -> Capabilities | None:
    """The server's capabilities as cached; None if it was never asked."""
    key = _capabilities_key(settings)
    by_key = cache.find([key])
    return Capabilities.model_validate(by_key[key]) if by_key else None


def _capabilities_key(settings: EndpointSettings) -> str:
    by_name = ["logprobs"] if settings.answers == "logprobs" else []  # less is then expected of the letters
    return content_key(["offers", settings.public_url, settings.model, not settings.may_score_letters, *by_name])


def _cached_fields(response: Mapping[str, Any], version: Version) -> dict[str, Any]:
    """The fields of a response that are cached: text, likeliest first tokens, why it ended, and the server's version."""
    choice = response["choices"][0]
    message, finish = choice.get("message"), choice.get("finish_reason")
    text = message.get("content") if isinstance(message, dict) else None
    return {
        "text": text if isinstance(text, str) else None,
        "top": top_of(response),
        "finish_reason": finish if isinstance(finish, str) else None,
        **version._asdict(),
    }


def _version(response: Mapping[str, Any], default: Version) -> Version:
    """The version of a cached response; the default for a refusal, which names none."""
    version = Version(response["model"], response.get("fingerprint"))
    return version if any(version) else default


def _is_incomplete(reading: Reading, style: PromptStyle, response: Mapping[str, Any], question: Question) -> bool:
    """Whether a response is empty, or cut off before it named a choice.

    One token is all that is asked for where letters are scored, so such an answer always ends at its limit.
    """
    if reading == "logprobs":
        return response["top"] is None
    if not (response["text"] or "").strip():
        return True
    return response["finish_reason"] == CUT_OFF and _answer_of(reading, style, response, question).chosen is None


def _notices(responses: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is to be said of the responses of a batch that are no answers."""
    lines = []
    if incomplete := Counter(str(response["finish_reason"]) for response in responses if response.get(INCOMPLETE)):
        reasons = ", ".join(f"{reason} {number:,}" for reason, number in incomplete.most_common())
        lines.append(
            f"{incomplete.total():,} answers were empty or cut off (finish_reason: {reasons}); they count as unanswered, and running the "
            "command again asks for them again"
        )
    if refused := [response["refused"] for response in responses if "refused" in response]:
        lines.append(f"the endpoint refused {len(refused):,} of them, which count as unanswered; the first reason: {refused[0]}")
    return lines


def _answer_of(reading: Reading, style: PromptStyle, response: Mapping[str, Any], question: Question) -> Answer:
    if reading == "logprobs":
        return UNANSWERED if response["top"] is None else answer_of_logprobs(response["top"], len(question.choices))
    return answer_of_text(response["text"], question.choices, lettered=style == "letters")
