"""Targets: answers that other tools have logged, and chat answers of an endpoint."""

from __future__ import annotations

import csv
import io
import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from helpers.malformed.json_cases import HOSTILE, json_files, json_lines, spoiled, torn
from helpers.malformed.target import Prepare, Ready
from theodolite.asking.answer import Question
from theodolite.asking.answer_log import read_answer_log
from theodolite.asking.endpoint.asker import EndpointAsker
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.asking.endpoint.channel import EndpointSettings

SAMPLES: list[dict[str, Any]] = [
    {"doc_id": at, "doc": {"id": str(at), "question": "What?", "picture": "a.png"}, "target": "A", "resps": [["A"]],
    "filtered_resps": ["A"],
     "theodolite_right": {"id": str(at), "prompt": "letters"}}
    for at in range(3)
]  # fmt: skip
TABLE: list[dict[str, Any]] = [
    {"index": at, "id": str(at), "question": "What?", "image_path": "['a.png']", "A": "red", "B": "blue", "answer": "A", "prediction": "A"}
    for at in range(3)
]


def as_table(rows: Any, separator: str) -> bytes:
    target = io.StringIO()
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(target, names, delimiter=separator)
    writer.writeheader()
    writer.writerows(rows)
    return target.getvalue().encode(errors="surrogatepass")


def sample_logs(folder: Path) -> Ready:
    """The first byte of a case chooses the file's name."""
    names = ("x_samples_y.jsonl", "samples.json", "result.csv", "result.tsv", "x_samples_y.json")
    (folder / "x_results.json").write_text('{"model_name": 7}')

    def consume(payload: bytes) -> None:
        path = folder / names[payload[0] % len(names)]
        path.write_bytes(payload[1:])
        read_answer_log(path)

    def named(number: int, cases: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
        return cases.map(lambda data: bytes([number]) + data)

    tables = [spoiled([TABLE]).map(lambda rows, sign=sign: as_table(rows, sign)).flatmap(torn) for sign in (",", "\t")]  # type: ignore[misc]
    logs = [json_lines([SAMPLES]), json_files([SAMPLES, {"logs": SAMPLES}, TABLE]), *tables, json_files([{"logs": TABLE}])]
    return Ready(st.one_of(*(named(number, cases) for number, cases in enumerate(logs))), consume)


ENTRY = {"token": "A", "logprob": -0.1, "bytes": [65], "top_logprobs": [{"token": "A", "logprob": -0.1}, {"token": " b", "logprob": -3}]}
CHAT: dict[str, Any] = {
    "id": "x", "object": "chat.completion", "created": 0, "model": "m", "system_fingerprint": "f",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A"}, "logprobs": {"content": [ENTRY]}}],
    "usage": {"prompt_tokens": 1},
}  # fmt: skip
ERROR = {"error": {"message": "no such model", "type": "invalid", "code": 404, "param": None}}
STATUSES = (200, 200, 200, 200, 200, 400, 404, 422, 500, 204)


def chat_answers(folder: Path) -> Ready:
    """Answers on loopback to the questions of a survey: the first byte chooses the status, the rest is the body."""
    body, status = b"", 200

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._reply()

        def do_GET(self) -> None:
            self._reply()

        def _reply(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            """Nothing is printed."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    pictures = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    questions: Sequence[Question] = [Question(0, "What colour?", ("red", "blue"))]

    def consume(payload: bytes) -> None:
        nonlocal body, status
        status, body = STATUSES[payload[0] % len(STATUSES)], payload[1:]
        settings = EndpointSettings(url, "m", retries=0, first_wait_s=0.0, longest_wait_s=0.0, timeout_s=3.0, concurrency=1)
        cache = ResponseCache(None)
        try:
            asker = EndpointAsker(settings, cache)
            asker.identify()
            asker.ask(pictures, questions)
            json.dumps(asker.describe().model_dump(mode="json"))
        finally:
            cache.close()

    consume(b"\0" + json.dumps(CHAT).encode())  # the client asks the system once for its name
    bodies = st.one_of(
        json_files([CHAT]), json_files([CHAT]), json_files([ERROR]), st.sampled_from(HOSTILE).map(lambda value: json.dumps(value).encode())
    )
    return Ready(st.tuples(st.integers(0, 255), bodies).map(lambda pair: bytes([pair[0]]) + pair[1]), consume)


TARGETS: Mapping[str, Prepare] = {"sample logs": sample_logs, "chat answers": chat_answers}
