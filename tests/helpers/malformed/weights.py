"""Targets: GGUF files, safetensors files of checkpoints, and the JSON files of model folders."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from hypothesis import strategies as st
from safetensors.torch import save
from torch import nn

from helpers.malformed.byte_cases import damaged
from helpers.malformed.json_cases import json_files, spoiled
from helpers.malformed.target import Prepare, Ready
from helpers.tiny_gguf import write
from helpers.tiny_llava import tiny_vlm
from theodolite.models.construction.gguf import load_gguf
from theodolite.models.export import export_vlm
from theodolite.models.load import load_vlm
from theodolite.training.checkpoint import load_trained

COUNTS = (0, 1, 2, 255, 2**31, 2**32, 2**60, 2**63 - 1, 2**63, 2**64 - 1)


@st.composite
def counted(draw: st.DrawFn, data: bytes) -> bytes:
    """A GGUF file whose version, number of tensors, number of keys, or length of the first key is another."""
    form, at = draw(st.sampled_from((("<I", 4), ("<Q", 8), ("<Q", 16), ("<Q", 24))))
    number = draw(st.sampled_from(COUNTS)) % 256 ** struct.calcsize(form)
    return data[:at] + struct.pack(form, number) + data[at + struct.calcsize(form) :]


def gguf(folder: Path) -> Ready:
    path = folder / "tiny.gguf"
    write(path)
    whole = path.read_bytes()
    load_gguf(path)

    def consume(payload: bytes) -> None:
        path.write_bytes(payload)
        load_gguf(path)

    return Ready(st.one_of(counted(whole), damaged([whole], most=2, header=1500)), consume)


@st.composite
def headers(draw: st.DrawFn, data: bytes) -> bytes:
    """A safetensors file whose header has other types, offsets, shapes or texts, or another length before it."""
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(draw(spoiled([json.loads(data[8 : 8 + length])]))).encode()
    stated = draw(st.sampled_from((len(header), len(header), len(header), 0, len(header) + 8, 2**31, 2**60, 2**64 - 1)))
    return stated.to_bytes(8, "little") + header + data[8 + length :]


def safetensors(folder: Path) -> Ready:
    module = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    whole = save({name: value.contiguous() for name, value in module.state_dict().items()})

    def consume(payload: bytes) -> None:
        (folder / "model.safetensors").write_bytes(payload)
        load_trained(module, folder)

    return Ready(st.one_of(headers(whole), damaged([whole], header=64)), consume)


FILES = ("config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "model.safetensors")


def model_folder(folder: Path) -> Ready:
    """The first byte of a case chooses the file of the folder that it replaces."""
    home = folder / "model"
    export_vlm(*tiny_vlm(), home)
    whole = {name: (home / name).read_bytes() for name in FILES if (home / name).is_file()}
    names = list(whole)
    load_vlm(home)

    def consume(payload: bytes) -> None:
        name = names[payload[0] % len(names)]
        (home / name).write_bytes(payload[1:])
        try:
            load_vlm(home)
        finally:
            (home / name).write_bytes(whole[name])

    def of(at: int, name: str) -> st.SearchStrategy[bytes]:
        cases = headers(whole[name]) if name.endswith(".safetensors") else json_files([json.loads(whole[name])])
        return cases.map(lambda data: bytes([at]) + data)

    return Ready(st.one_of(*(of(at, name) for at, name in enumerate(names))), consume)


TARGETS: Mapping[str, Prepare] = {"GGUF": gguf, "safetensors": safetensors, "model folder": model_folder}
