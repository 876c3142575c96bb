"""Chat endpoints on loopback for tests: one whose replies a function decides, which counts what it was asked."""

from __future__ import annotations

import json
import math
import threading
from base64 import b64decode
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from theodolite.asking.answer import Question
from theodolite.asking.prompts import LETTERS
from theodolite.records.progress import silent


@dataclass(frozen=True)
class Asked:
    """A request: its number from 0, the decoded body, and its headers, in Title-Case."""

    number: int
    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def prompt(self) -> str:
        return next(part["text"] for part in self.body["messages"][0]["content"] if part["type"] == "text")

    @property
    def question(self) -> str:
        return self.prompt.split("\n")[0]

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(line[3:] for line in self.prompt.split("\n")[1:-1])

    @property
    def picture(self) -> np.ndarray:
        url = next(part["image_url"]["url"] for part in self.body["messages"][0]["content"] if part["type"] == "image_url")
        return np.asarray(Image.open(BytesIO(b64decode(url.removeprefix("data:image/png;base64,")))))


@dataclass(frozen=True)
class Reply:
    """What goes back: a status and a body; `drop` closes the connection without a word, `stall` waits for `Server.going` first.

    `drip` sends a byte of the body every twentieth of a second, until the client is gone; `half` sends half of the body and closes the
    connection; `hang_up` sends all of it and closes the connection without saying so, on which the client will send its next request.
    """

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drop: bool = False
    stall: bool = False
    drip: bool = False
    half: bool = False
    hang_up: bool = False


def said(
    text: str | None,
    top: dict[str, float] | None = None,
    model: str | None = "tiny-1",
    finish: str = "stop",
    fingerprint: str | None = None,
) -> Reply:
    """A chat answer; `top` are probabilities of first tokens."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    if top is not None:
        entries = [{"token": token, "logprob": math.log(mass) if mass else -9999.0, "bytes": None} for token, mass in top.items()]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    version = {name: value for name, value in (("model", model), ("system_fingerprint", fingerprint)) if value is not None}
    return Reply({"id": "x", "object": "chat.completion", "created": 0, **version, "choices": [choice]})


def refused(status: int, message: str) -> Reply:
    return Reply({"error": {"message": message, "type": "bad", "code": None}}, status)


@dataclass(eq=False)
class Server:
    """A running endpoint. `asked` are the requests as they came, `answered` counts replies of status 200 by what was asked.

    `models` is its list of models; empty: it has none.
    """

    url: str
    asked: list[Asked] = field(default_factory=list)
    answered: Counter[tuple[str, bytes]] = field(default_factory=Counter)
    going: threading.Event = field(default_factory=threading.Event)
    models: list[str] = field(default_factory=list)
    most_at_once: int = 0
    now: int = 0


@contextmanager
def serving(reply: Callable[[Asked], Reply]) -> Iterator[Server]:
    """An endpoint that answers as `reply` says."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                asked = Asked(len(server.asked), body, {name.title(): value for name, value in self.headers.items()})
                server.asked.append(asked)
                server.now += 1
                server.most_at_once = max(server.most_at_once, server.now)
            try:
                self._answer(asked, reply(asked))
            finally:
                with lock:
                    server.now -= 1

        def do_GET(self) -> None:
            data = json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in server.models]}).encode()
            self.send_response(200 if server.models else 404)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def _answer(self, asked: Asked, found: Reply) -> None:
            if found.stall:
                server.going.wait(20)
            if found.drop or (found.stall and not server.going.is_set()):
                self.close_connection = True
                return
            data = found.body if isinstance(found.body, bytes) else json.dumps(found.body).encode()
            try:
                self.send_response(found.status)
                for name, value in {"Content-Type": "application/json", **found.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                for at in range(len(data) if found.drip else 0):
                    self.wfile.write(data[at : at + 1])
                    if server.going.wait(0.05):
                        break
                self.wfile.write(b"" if found.drip else data[: len(data) // 2] if found.half else data)
            except OSError:  # whoever asked is gone
                return
            if found.half or found.hang_up:
                self.close_connection = True
            if found.half:
                return
            if found.status == 200:
                with lock:
                    server.answered[asked.prompt, asked.picture.tobytes()] += 1

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    httpd.daemon_threads = True
    server = Server(f"http://127.0.0.1:{httpd.server_address[1]}/v1")
    thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.going.set()
        httpd.shutdown()
        httpd.server_close()
        thread.join()


def by_pixels(asked: Asked) -> Reply:
    """A letter that follows from the picture and the question alone, as plain text; log-probabilities are refused."""
    if "logprobs" in asked.body:
        return refused(422, "Unexpected fields in the request: {'logprobs'}")
    at = (int(asked.picture.astype(np.int64).sum()) + len(asked.question)) % (len(asked.choices) or 1)
    return said(LETTERS[at])


def of_asker(asker: Any) -> Callable[[Asked], Reply]:
    """The letters of choices with the probabilities that a local asker gives to the choices."""
    lock = threading.Lock()

    def reply(asked: Asked) -> Reply:
        with lock:
            [answer] = asker.ask(np.ascontiguousarray(asked.picture)[None], [Question(0, asked.question, asked.choices)], silent)
        mass = {LETTERS[at]: float(share) * (1 - answer.outside) for at, share in enumerate(answer.probabilities)}
        return said(max(mass, key=lambda letter: mass[letter]), {**mass, "the": answer.outside})

    return reply
