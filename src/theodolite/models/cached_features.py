"""What a frozen encoder made of pictures, kept by content on disk or in memory, so that no picture runs through it twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from theodolite.models.fingerprint import weights_hash
from theodolite.records.errors import BadInput

# So much is kept in memory; what comes after is made anew at each visit.
LIMIT_GIB = 2.0
# Several processes may write one store; each waits so long for the others.
PATIENCE_S = 60.0


@runtime_checkable
class FeatureCache(Protocol):
    """Where features are kept, by the hash of what they were made from."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Those of the keys that are there, with their tensors."""

    def put(self, features: dict[bytes, Tensor]) -> None:
        """Keeps tensors by key."""


class MemoryFeatureCache:
    """Tensors in this process's memory, up to `limit_gib`."""

    def __init__(self, limit_gib: float = LIMIT_GIB) -> None:
        self.limit, self.size = limit_gib * 2**30, 0
        self.kept: dict[bytes, Tensor] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Those of the keys that are there, with their tensors."""
        return {key: self.kept[key] for key in keys if key in self.kept}

    def put(self, features: dict[bytes, Tensor]) -> None:
        """Keeps tensors by key while there is room."""
        for key, value in features.items():
            if self.size + value.nbytes > self.limit:
                return
            self.kept[key] = value.clone()  # a slice would hold on to the whole batch that it was cut from
            self.size += value.nbytes


class DiskFeatureCache:
    """Tensors on disk by the hash of what they were made from; safe for several processes at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as store:
            store.execute("CREATE TABLE IF NOT EXISTS feature (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """Those of the keys that are there, with their tensors."""
        with self._open() as store:
            rows = [store.execute("SELECT key, value FROM feature WHERE key = ?", (key,)).fetchone() for key in dict.fromkeys(keys)]
        return {key: load(value)["feature"] for key, value in filter(None, rows)}

    def put(self, features: dict[bytes, Tensor]) -> None:
        """Keeps tensors by key; what is there already stays."""
        rows = [(key, save({"feature": value.contiguous().cpu()})) for key, value in features.items()]
        with self._open() as store:
            store.executemany("INSERT OR IGNORE INTO feature VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: a connection must not cross into a loader's or a launcher's other processes.
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as store, store:
                store.execute("PRAGMA journal_mode = WAL")
                yield store
        except sqlite3.DatabaseError as error:
            raise BadInput(f"the cache of features {self.path} cannot be used ({error}); remove it, and it is made anew") from error


@contextmanager
def cached_features(encoder: nn.Module, layers: int | Sequence[int], store: FeatureCache) -> Iterator[None]:
    """Within, the frozen encoder runs only on pictures whose hidden states at `layers` are not in the store.

    The key is over the encoder's weights, the precision it runs in, the layers, and the picture's pixels. Raises `BadInput` for an encoder
    that is trained, whose outputs would be stale.
    """
    if any(weight.requires_grad for weight in encoder.parameters()):
        raise BadInput("features of an encoder that is trained cannot be kept; freeze it, or leave the cache out")
    wanted = [layers] if isinstance(layers, int) else list(layers)
    identity, forward = weights_hash(encoder).encode(), encoder.forward

    def recall(pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        keys = [_key(identity, wanted, picture) for picture in pixel_values]
        found = store.get(keys)
        missing = {key: number for number, key in enumerate(keys) if key not in found}
        if missing:
            with torch.no_grad():
                states = forward(pixel_values[list(missing.values())], **{**kwargs, "output_hidden_states": True}).hidden_states
            made = torch.stack([states[layer] for layer in wanted], dim=1)
            fresh = dict(zip(missing, made, strict=True))
            store.put(fresh)
            found |= fresh
        stacked = torch.stack([found[key].to(pixel_values.device) for key in keys])
        return _output(dict(zip(wanted, stacked.unbind(1), strict=True)))

    encoder.forward = recall  # type: ignore[method-assign]
    try:
        yield
    finally:
        del encoder.forward


def _key(identity: bytes, layers: Sequence[int], picture: Tensor) -> bytes:
    kind = picture.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else picture.dtype
    digest = hashlib.sha256(identity + repr((tuple(layers), precision, picture.dtype, tuple(picture.shape))).encode())
    digest.update(picture.detach().contiguous().cpu().view(torch.uint8).numpy().data)
    return digest.digest()


class _Sparse(tuple[Tensor | None, ...]):
    """Hidden states of which only some are there; a negative position counts from the end, as the caller's configuration does."""

    states: dict[int, Tensor]

    @classmethod
    def of(cls, states: dict[int, Tensor]) -> _Sparse:
        found = cls()
        found.states = states
        return found

    def __getitem__(self, layer: Any) -> Any:
        return self.states[layer]


def _output(states: dict[int, Tensor]) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(last_hidden_state=states.get(-1), hidden_states=_Sparse.of(states))
