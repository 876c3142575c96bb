"""Cache of a frozen encoder's hidden states, by picture content, on disk or in memory, so that no picture is encoded twice."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from theodolite.models.fingerprint import weights_hash
from theodolite.records.errors import BadInput
from theodolite.records.machine_faults import disk_fault

# Limit of a cache in memory; features beyond it are computed at every use.
LIMIT_GIB = 2.0
# Several processes may write one cache; each waits up to this long for a lock.
PATIENCE_S = 60.0
HASH = 16  # bytes before each value on disk
_PASSES_BY: ContextVar[bool] = ContextVar("passes_by", default=False)


@runtime_checkable
class FeatureCache(Protocol):
    """Tensors by key; a key is the hash of all that a tensor was computed from."""

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """The tensors of those keys that are stored."""

    def put(self, features: dict[bytes, Tensor]) -> None:
        """Stores tensors by key."""


class MemoryFeatureCache:
    """A cache in this process's memory, up to `limit_gib`."""

    def __init__(self, limit_gib: float = LIMIT_GIB) -> None:
        self.limit, self.size = limit_gib * 2**30, 0
        self.features: dict[bytes, Tensor] = {}

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """The tensors of those keys that are stored."""
        return {key: self.features[key] for key in keys if key in self.features}

    def put(self, features: dict[bytes, Tensor]) -> None:
        """Stores tensors by key up to the limit; the rest are dropped."""
        for key, value in features.items():
            if self.size + value.nbytes > self.limit:
                return
            self.features[key] = value.clone()  # a slice would keep its whole batch in memory
            self.size += value.nbytes


class DiskFeatureCache:
    """A cache in an SQLite file, safe for several processes at once. Values are stored with their hash: SQLite reads zeros where a file was
    cut off.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as store:
            store.execute("CREATE TABLE IF NOT EXISTS hashed_feature (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Tensor]:
        """The tensors of those keys that are stored."""
        with self._open() as store:
            rows = [store.execute("SELECT key, value FROM hashed_feature WHERE key = ?", (key,)).fetchone() for key in dict.fromkeys(keys)]
            return {key: load(_checked(value))["feature"] for key, value in filter(None, rows)}

    def put(self, features: dict[bytes, Tensor]) -> None:
        """Stores tensors by key; stored ones are not overwritten."""
        rows = [(key, _hashed(save({"feature": value.contiguous().cpu()}))) for key, value in features.items()]
        with self._open() as store:
            store.executemany("INSERT OR IGNORE INTO hashed_feature VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # Opened for each use: a connection must not be shared with the worker processes of a loader or launcher.
        try:
            with closing(sqlite3.connect(self.path, timeout=PATIENCE_S)) as store, store:
                store.execute("PRAGMA journal_mode = WAL")
                yield store
        except (sqlite3.DatabaseError, SafetensorError) as error:  # SafetensorError: the file was cut off within a value
            fault = disk_fault(error)
            advice = "remove it, and it is rebuilt" if fault is None else "free some space there"
            raise BadInput(f"the feature cache {self.path} cannot be used ({fault or error}); {advice}") from error


def _hashed(value: bytes) -> bytes:
    return hashlib.blake2b(value, digest_size=HASH).digest() + value


def _checked(stored: bytes | None) -> bytes:
    """A value without its hash. Raises `sqlite3.DatabaseError` if it is not the one that was stored."""
    value = (stored or b"")[HASH:]  # a file that was cut off has None where none may be
    if _hashed(value) != stored:
        raise sqlite3.DatabaseError("a stored value was changed or cut off")
    return value


@contextmanager
def passing_cache() -> Iterator[None]:
    """Within the context, encoders under `cached_features` neither read nor fill their stores: for pictures that no step sees again."""
    token = _PASSES_BY.set(True)
    try:
        yield
    finally:
        _PASSES_BY.reset(token)


@contextmanager
def cached_features(encoder: nn.Module, layers: int | Sequence[int], store: FeatureCache) -> Iterator[None]:
    """Within the context, the frozen encoder runs only on pictures whose hidden states at `layers` are not in the store.

    A key hashes the encoder's weights, its precision, the layers and the picture's pixels. Raises `BadInput` for an encoder that is
    trained, since its stored outputs would be stale.
    """
    if any(weight.requires_grad for weight in encoder.parameters()):
        raise BadInput("features of an encoder that is trained cannot be cached; freeze it, or leave the cache out")
    wanted = [layers] if isinstance(layers, int) else list(layers)
    identity, forward = weights_hash(encoder).encode(), encoder.forward

    def cached_forward(pixel_values: Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        if _PASSES_BY.get():
            passed: BaseModelOutputWithPooling = forward(pixel_values, **kwargs)
            return passed
        keys = [_key(identity, wanted, picture) for picture in pixel_values]
        features = store.get(keys)
        missing = {key: number for number, key in enumerate(keys) if key not in features}
        if missing:
            with torch.no_grad():
                states = forward(pixel_values[list(missing.values())], **{**kwargs, "output_hidden_states": True}).hidden_states
            stacked = torch.stack([states[layer] for layer in wanted], dim=1)
            computed = dict(zip(missing, stacked, strict=True))
            store.put(computed)
            features |= computed
        by_picture = torch.stack([features[key].to(pixel_values.device) for key in keys])
        return _output(dict(zip(wanted, by_picture.unbind(1), strict=True)))

    encoder.forward = cached_forward  # type: ignore[method-assign]
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


class _SparseStates(tuple[Tensor | None, ...]):
    """Hidden states of some layers only, by layer; a negative layer counts from the end, as in the model's configuration."""

    states: dict[int, Tensor]

    @classmethod
    def of(cls, states: dict[int, Tensor]) -> _SparseStates:
        sparse = cls()
        sparse.states = states
        return sparse

    def __getitem__(self, layer: Any) -> Any:
        return self.states[layer]


def _output(states: dict[int, Tensor]) -> BaseModelOutputWithPooling:
    return BaseModelOutputWithPooling(last_hidden_state=states.get(-1), hidden_states=_SparseStates.of(states))
