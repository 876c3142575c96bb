"""Requests to a chat endpoint: one way in and out, with its limit of requests, its second tries, and its secrets kept."""

from __future__ import annotations

import json
import math
import os
import random
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import Any, Literal
from urllib.parse import unquote, urlsplit, urlunsplit

from theodolite.records.errors import BadInput

KEY_ENV = "OPENAI_API_KEY"
NO_KEY = "none"  # the client sends some word; servers without keys do not look at it
AGAIN = (408, 409, 425, 429)  # and everything from 500 on
LEAST_SECRET = 6  # characters; shorter ones would blot out ordinary words
MOST_SAID = 300


class Refused(BadInput):
    """A server's final no; `status` is its HTTP status, `said` what it said."""

    def __init__(self, status: int, said: str, message: str) -> None:
        super().__init__(message)
        self.status, self.said = status, said


@dataclass(frozen=True)
class EndpointSettings:
    """Where and how a model behind an endpoint is asked.

    `key_env` names the environment variable that holds the key; the key itself is never here. Waits between tries double from
    `first_wait_s` up to `longest_wait_s`, with jitter, unless the server says how long. `max_tokens` limits an answer that is read from
    text. `answers`: logprobs, text, or auto, which is logprobs where they are offered.
    """

    base_url: str = field(repr=False)  # it may hold a password
    model: str
    key_env: str = KEY_ENV
    answers: Literal["auto", "logprobs", "text"] = "auto"
    picture_size: int = 224
    concurrency: int = 8
    per_minute: float | None = None
    timeout_s: float = 120.0
    retries: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    most_told_s: float = 600.0  # a server that says to wait longer than this ends the run
    max_tokens: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.base_url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that do not close, a port that is no number
            usable = False
        if not usable:
            raise BadInput("the endpoint is no web address; give one such as http://localhost:8000/v1")
        if parts.query or parts.fragment:
            raise BadInput(f"the endpoint {self.public_url} has a query behind it; a key belongs into an environment variable (--key-env)")

    @property
    def public_url(self) -> str:
        """The address without user, password and query."""
        parts = urlsplit(self.base_url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))

    def key(self) -> str | None:
        """The key, from the environment. Raises `BadInput` where a variable was named that is not there."""
        found = os.environ.get(self.key_env)
        if not found and self.key_env != KEY_ENV:
            raise BadInput(f"the environment variable {self.key_env} is not set; put the endpoint's key into it")
        if found and not (found.isascii() and found.isprintable()):
            raise BadInput(f"the key in {self.key_env} holds signs that no key has (quotation marks, line ends); copy it anew")
        return found or None


class Exhausted(BadInput):
    """A question on which the server failed every time."""


class Channel:
    """Sends requests, from several threads at once, and gives back what the server answered, with no secret in it.

    Stalls, dropped connections, nonsense, 408, 409, 425, 429 and 5xx are tried again; Retry-After holds all threads back. Raises
    `Refused` for any other refusal, `BadInput` after the last try, or where the `openai` package is missing.
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
        self.num_sent = 0

    def send(self, request: Mapping[str, Any], retries: int | None = None) -> dict[str, Any]:
        """The server's answer to a chat request, as decoded JSON with a list of choices."""
        trouble, most = "", self.settings.retries if retries is None else retries
        for attempt in range(most + 1):
            self._await_turn()
            try:
                return self._once(request)
            except self._openai.APIStatusError as error:
                trouble = f"HTTP {error.status_code}: {self._said(error)}"
                if not _passing(error.status_code, error.code):
                    raise self._refusal(error.status_code, self._said(error)) from None  # its chain may hold what must not show
                told = _told_wait(error.response.headers)
            except self._openai.OpenAIError as error:  # stalls, dropped connections
                trouble, told = self.hide(str(error) or type(error).__name__), None
            except Nonsense as error:
                trouble, told = self.hide(str(error)), None
            if attempt < most:
                self._hold_back(attempt, told)
        raise Exhausted(
            f"{self.settings.public_url} failed {most + 1} times on one question ({trouble}); what was answered is kept, "
            "and running the command again goes on from there"
        )

    def hide(self, text: str) -> str:
        """A text without the key and the password."""
        for secret in self._secrets:
            text = text.replace(secret, "[hidden]")
        return text

    def stop(self) -> None:
        """Lets no further request go; threads that wait end with `BadInput`."""
        self._stopped.set()

    def _once(self, request: Mapping[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.num_sent += 1
        raw = self._client.chat.completions.with_raw_response.create(**request)
        text = raw.text if isinstance(raw.text, str) else raw.text()
        shown = self.hide(text)[:MOST_SAID]  # cut after hiding, or half a key might show
        try:
            # Hidden once it is decoded: a server may write a key's signs escaped.
            found = json.loads(self.hide(json.dumps(json.loads(text), ensure_ascii=False)))
        except ValueError:
            raise Nonsense(f"it answered no JSON: {shown!r}") from None
        choices = found.get("choices") if isinstance(found, dict) else None
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise Nonsense(f"it answered without choices: {shown!r}")
        return dict(found)

    def _await_turn(self) -> None:
        """Waits until this request may go, by the limit of requests a minute and by what the server said."""
        with self._lock:
            start = max(monotonic(), self._free_at)
            if self.settings.per_minute is not None:
                self._free_at = start + 60.0 / self.settings.per_minute
        self._pause(start - monotonic())

    def _hold_back(self, attempt: int, told: float | None) -> None:
        own = min(self.settings.first_wait_s * 2.0**attempt, self.settings.longest_wait_s) * random.uniform(0.5, 1.0)
        if told is None or told < own:  # at random, so that threads do not all come back at once
            self._pause(own)
            return
        if told > self.settings.most_told_s:
            raise BadInput(
                f"{self.settings.public_url} says to wait {told:.0f} s; what was answered is kept, and running the command again then "
                "goes on from there"
            )
        with self._lock:
            self._free_at = max(self._free_at, monotonic() + told)

    def _pause(self, seconds: float) -> None:
        if self._stopped.wait(max(seconds, 0.0)):
            raise BadInput("stopped, since another question failed")

    def _refusal(self, status: int, said: str) -> Refused:
        more = f"; put the key into the environment variable {self.settings.key_env}" if status in (401, 403) else ""
        return Refused(status, said, f"{self.settings.public_url} refused {self.settings.model!r}: HTTP {status}: {said}{more}")

    def _said(self, error: Any) -> str:
        """What the server said, as short as it can be had."""
        body = error.body
        if isinstance(body, dict):
            inner = body.get("error", body)
            body = inner.get("message") or inner.get("detail") or inner if isinstance(inner, dict) else inner
        return self.hide(str(body or error.message))[:MOST_SAID]


class Nonsense(Exception):
    """An answer that is none: tried again."""


def _passing(status: int, code: object) -> bool:
    """Whether a refusal may pass with time."""
    return (status in AGAIN or status >= 500) and code != "insufficient_quota"


def _told_wait(headers: Mapping[str, str], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> float | None:
    """Seconds that the server says to wait: Retry-After as a number or a date; None where it says nothing that can be read."""
    told = headers.get("retry-after")
    if told is None:
        return None
    try:
        seconds = float(told)
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(told) - now()).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None
