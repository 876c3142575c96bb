"""Cache of endpoint answers on disk, by the content of the request: no request is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput
from theodolite.records.machine_faults import disk_fault

WAIT_S = 60.0  # for other processes that write to the same file
KEYS_AT_ONCE = 500  # of one SELECT
INCOMPLETE = "incomplete"  # key of an answer, true where it may be replaced by a later one


def content_key(content: Any) -> str:
    """SHA-256, in hex, of a request's content as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class ResponseCache:
    """A SQLite file of answers by key, in memory if the path is None. Each answer is one atomic write; processes may share the file.

    The first answer to a request stays, unless it is marked `INCOMPLETE`: `put` returns the stored one. What servers say of themselves is
    kept beside the answers. Raises `BadInput` for a file of another kind.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._refusing():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(str(path or ":memory:"), timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            for name in ("responses", "servers"):
                self._base.execute(f"CREATE TABLE IF NOT EXISTS {name} (key TEXT PRIMARY KEY, response TEXT NOT NULL) WITHOUT ROWID")

    def put(self, key: str, response: Any) -> Any:
        """Stores an answer unless the key has a complete one; returns the stored one."""
        with self._refusing(), self._lock:
            self._base.execute(
                "INSERT INTO responses VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET response = excluded.response "
                f"WHERE json_extract(responses.response, '$.{INCOMPLETE}')",
                (key, json.dumps(response)),
            )
        return self.find([key])[key]

    def remember_server(self, key: str, facts: Any) -> None:
        """Stores what a server says of itself, in place of what it said before."""
        with self._refusing(), self._lock:
            self._base.execute("INSERT OR REPLACE INTO servers VALUES (?, ?)", (key, json.dumps(facts)))

    def recall_server(self, key: str) -> Any:
        """What a server said of itself last; None if nothing is stored."""
        with self._refusing(), self._lock:
            row = self._base.execute("SELECT response FROM servers WHERE key = ?", (key,)).fetchone()
        with self._refusing():
            return None if row is None else json.loads(row[0])

    def find(self, keys: Sequence[str]) -> dict[str, Any]:
        """The stored answers to these keys; keys without one are left out."""
        responses: dict[str, str] = {}
        with self._refusing(), self._lock:
            for start in range(0, len(keys), KEYS_AT_ONCE):
                some = list(keys[start : start + KEYS_AT_ONCE])
                marks = ",".join("?" * len(some))
                responses |= dict(self._base.execute(f"SELECT key, response FROM responses WHERE key IN ({marks})", some))
        with self._refusing():
            return {key: json.loads(response) for key, response in responses.items()}

    def close(self) -> None:
        """Closes the file."""
        self._base.close()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError, TypeError) as error:  # the last two: the file was cut off within an answer
            fault = disk_fault(error)
            advice = "remove it, or give another file with --cache" if fault is None else "free some space there; what is answered stays"
            raise BadInput(f"the cache of answers {self.path} cannot be used ({fault or error}); {advice}") from error
