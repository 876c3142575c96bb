"""Requests to a chat endpoint: rate limit, retries, and removal of secrets from everything that comes back."""

from __future__ import annotations

import json
import math
import os
import random
import sys
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any, Literal, TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

from theodolite.asking.prompts import DEFAULT
from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput

Result = TypeVar("Result")
KEY_ENV = "OPENAI_API_KEY"
NO_KEY = "none"  # the client must send a key; servers without keys ignore it
AGAIN = (408, 409, 425, 429)  # retried, as is everything from 500 on
LEAST_SECRET = 6  # characters; hiding shorter secrets would blot out ordinary words
MOST_SHOWN = 300
MOST_BYTES = 2**24  # of a response, unpacked; an answer with log-probabilities has a few thousand


class Refused(BadInput):
    """A refusal that no retry can change, with the server's HTTP status and reason."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass(frozen=True)
class EndpointSettings:
    """Address, model and request settings of an endpoint.

    `key_env` names the environment variable with the key; the key itself is never stored. Waits between tries double from `first_wait_s`
    up to `longest_wait_s`, with jitter, unless the server sends Retry-After. `max_tokens` limits answers read from text. `answers`:
    logprobs, text, or auto (logprobs where the server returns them and `prompt` has letters, which are what is scored).
    """

    base_url: str = field(repr=False)  # it may hold a password
    model: str
    key_env: str = KEY_ENV
    answers: Literal["auto", "logprobs", "text"] = "auto"
    picture_size: int | None = 224  # None: pictures of files at their own sizes
    concurrency: int = 8
    per_minute: float | None = None
    timeout_s: float = 120.0
    retries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 600.0  # a longer Retry-After ends the run
    max_tokens: int = 32
    seed: int = 0
    prompt: PromptStyle = DEFAULT

    def __post_init__(self) -> None:
        if self.answers == "logprobs" and self.prompt != "letters":
            raise BadInput(
                f"--answers logprobs scores the letters of options, and the prompt {self.prompt!r} writes none; give --prompt letters, or "
                "leave --answers out"
            )
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # unclosed brackets, a port that is no number
            usable = False
        if not usable:
            raise BadInput("the endpoint is no web address; give one such as http://localhost:8000/v1")
        if parts.query or parts.fragment:
            raise BadInput(f"the endpoint {self.public_url} has a query or fragment: leave it out, and give a key by --key-env")

    @property
    def may_score_letters(self) -> bool:
        """Whether answers are the log-probabilities of option letters, where the server returns them."""
        return self.prompt == "letters" and self.answers != "text"

    @property
    def public_url(self) -> str:
        """The address without user, password and query."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    def key(self) -> str | None:
        """The key from the environment; None if `OPENAI_API_KEY` is unset. Raises `BadInput` if another variable is, or on a bad key."""
        key = os.environ.get(self.key_env)
        if not key and self.key_env != KEY_ENV:
            raise BadInput(f"the environment variable {self.key_env} is not set; put the endpoint's key into it")
        if key and not (key.isascii() and key.isprintable()):
            raise BadInput(f"the key in {self.key_env} holds characters that no key has (curly quotes, line ends); copy it again")
        return key or None


# A whole response may take so many times the timeout, which is of a silence.
LONGEST = 5


class Exhausted(BadInput):
    """A request on which the server failed every time; `is_server_error` says whether it was with a status of 500 or more each time."""

    def __init__(self, message: str, is_server_error: bool) -> None:
        super().__init__(message)
        self.is_server_error = is_server_error


class Channel:
    """Sends requests from several threads and returns the server's responses, secrets hidden.

    Stalls, dropped connections, invalid responses, 408, 409, 425, 429 and 5xx are retried; Retry-After holds back all threads. Raises
    `Refused` on any other refusal, `BadInput` after the last try or if the `openai` package is missing.
    """

    def __init__(self, settings: EndpointSettings) -> None:
        try:
            import openai
        except ImportError as error:
            raise BadInput('endpoints are asked through the openai package; install it: pip install "theodolite[endpoint]"') from error
        self._openai = openai
        self.settings = settings
        key = settings.key()
        parts = urlsplit(settings.base_url)
        secrets = {key, parts.password, parts.netloc.rpartition("@")[0]}
        secrets |= {unquote(secret) for secret in secrets if secret}
        self._secrets = sorted((secret for secret in secrets if secret and len(secret) >= LEAST_SECRET), key=len, reverse=True)
        self._client = openai.OpenAI(base_url=settings.base_url, api_key=key or NO_KEY, max_retries=0, timeout=settings.timeout_s)
        weakref.finalize(self, self._client.close)  # else its connections stay open until the process ends
        self._lock = threading.Lock()
        self._free_at = 0.0  # on the monotonic clock: when the next request may go
        self._stopped = threading.Event()

    def send(self, request: Mapping[str, Any], retries: int | None = None, most_server_errors: int | None = None) -> dict[str, Any]:
        """The server's response to a chat request, as decoded JSON with a list of choices.

        With `most_server_errors` the request is given up if so many tries, the first ones, all end with a status of 500 or more.
        """
        return self._retrying(lambda: self._once(request), retries, most_server_errors)

    def _retrying(self, call: Callable[[], Result], retries: int | None = None, most_server_errors: int | None = None) -> Result:
        """The result of a call of the server, tried again as the settings say."""
        trouble, most, num_server_errors = "", self.settings.retries if retries is None else retries, 0
        for attempt in range(most + 1):
            self._await_turn()
            try:
                return call()
            except self._openai.APIStatusError as error:
                trouble = f"HTTP {error.status_code}: {self._reason(error)}"
                if not _is_temporary(error.status_code, error.code):
                    raise self._refusal(error.status_code, self._reason(error)) from None  # its chain may contain secrets
                retry_after = _retry_after_s(error.response.headers)
                num_server_errors += error.status_code >= 500
            except self._openai.OpenAIError as error:  # stalls, dropped connections
                trouble, retry_after = self.hide(str(error) or type(error).__name__), None
            except InvalidResponse as error:
                trouble, retry_after = self.hide(str(error)), None
            if attempt + 1 == num_server_errors == most_server_errors:
                break
            if attempt < most:
                self._wait(attempt, retry_after)
        raise Exhausted(
            f"{self.settings.public_url} failed {attempt + 1} times on one question ({trouble}); the answers so far are cached, "
            "and running the command again goes on from there",
            is_server_error=num_server_errors == attempt + 1,
        )

    def listed_model(self) -> str | None:
        """The server's id of the model in its list of models; None if it has no such list, or none of that name."""
        try:
            ids = self._retrying(lambda: [model.id for model in self._client.models.list()])
        except (Refused, Exhausted, TypeError, ValueError, AttributeError, RecursionError):  # no list, or one of another form
            return None
        name = self.settings.model if self.settings.model in ids else ids[0] if len(ids) == 1 else None
        return None if name is None else self.hide(str(name))

    def hide(self, text: str) -> str:
        """A text without the key and the password."""
        for secret in self._secrets:
            text = text.replace(secret, "[hidden]")
        return text

    def stop(self) -> None:
        """Stops all further requests; waiting threads raise `BadInput`."""
        self._stopped.set()

    def _once(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._client.chat.completions.with_streaming_response.create(**request) as raw:
            text = self._body(raw).decode(errors="replace")
        shown = self.hide(text)[:MOST_SHOWN]  # cut after hiding, or half a key might show
        try:
            # Hidden after decoding, since a server may escape the characters of a key.
            response = json.loads(self.hide(json.dumps(json.loads(text), ensure_ascii=False)))
        except (ValueError, RecursionError):
            raise InvalidResponse(f"its response is no JSON: {shown!r}") from None
        choices = response.get("choices") if isinstance(response, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise InvalidResponse(f"its response has no choices: {shown!r}")
        if not isinstance(choices[0].get("message"), dict):
            raise InvalidResponse(f"the choice in its response has no message: {shown!r}")
        return dict(response)

    def _body(self, raw: Any) -> bytes:
        """A response's bytes. Raises `InvalidResponse` if they break off, never end, or are not there after `LONGEST` times the timeout."""
        end, parts, size = monotonic() + LONGEST * self.settings.timeout_s, [], 0
        http = sys.modules[type(raw.http_response).__module__.partition(".")[0]]  # httpx, or httpx2: as the version of openai wants
        try:
            for part in raw.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MOST_BYTES:
                    raise InvalidResponse(f"its response is longer than {MOST_BYTES:,} bytes")
                if monotonic() > end:  # the timeout is of a silence: a byte now and then would go on for ever
                    break
            else:
                return b"".join(parts)
        except http.HTTPError as error:
            raise InvalidResponse(f"its response broke off: {error or type(error).__name__}") from None
        raise InvalidResponse(f"its response was not whole after {LONGEST * self.settings.timeout_s:g} s")

    def _await_turn(self) -> None:
        """Waits until this request may be sent, by the limit of requests a minute and the server's Retry-After."""
        with self._lock:
            start = max(monotonic(), self._free_at)
            if self.settings.per_minute is not None:
                self._free_at = start + 60.0 / self.settings.per_minute
        self._pause(start - monotonic())

    def _wait(self, attempt: int, retry_after: float | None) -> None:
        """Waits before the next try; a Retry-After longer than the own wait holds back all threads."""
        own = min(self.settings.first_wait_s * 2.0**attempt, self.settings.longest_wait_s) * random.uniform(0.5, 1.0)
        if retry_after is None or retry_after < own:  # jittered, so that threads do not all return at once
            self._pause(own)
            return
        if retry_after > self.settings.longest_retry_after_s:
            raise BadInput(
                f"{self.settings.public_url} asks to wait {retry_after:.0f} s; the answers so far are cached, and running the command "
                "again then goes on from there"
            )
        with self._lock:
            self._free_at = max(self._free_at, monotonic() + retry_after)

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(max(seconds, 0.0)):
            raise BadInput("stopped, since another question failed")

    def _refusal(self, status: int, reason: str) -> Refused:
        more = f"; put the key into the environment variable {self.settings.key_env}" if status in (401, 403) else ""
        return Refused(status, reason, f"{self.settings.public_url} refused {self.settings.model!r}: HTTP {status}: {reason}{more}")

    def _reason(self, error: Any) -> str:
        """The server's message, cut short and without secrets."""
        body = error.body
        if isinstance(body, dict):
            inner = body.get("error", body)
            body = inner.get("message") or inner.get("detail") or inner if isinstance(inner, dict) else inner
        return self.hide(str(body or error.message))[:MOST_SHOWN]


class InvalidResponse(Exception):
    """A response without valid choices; the request is retried."""


def _is_temporary(status: int, code: object) -> bool:
    """Whether a refusal may pass with time."""
    return (status in AGAIN or status >= 500) and code != "insufficient_quota"


def _retry_after_s(headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds of the header Retry-After, given as a number or a date; None if it is missing or invalid."""
    text = headers.get("retry-after")
    if text is None:
        return None
    try:
        seconds = float(text)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(text) - now()).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None
