"""Features of a frozen encoder on disk or in memory: the same numbers, computed once, and never stale."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from helpers.tiny_llava import tiny_vlm
from theodolite.models.cached_features import DiskFeatureCache, MemoryFeatureCache, cached_features
from theodolite.models.encoder_output import EncoderOutput
from theodolite.models.families import family_of
from theodolite.records.errors import BadInput


def pixels(number: int, seed: int = 0) -> Tensor:
    return torch.randn(number, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def counted(encoder: nn.Module) -> list[int]:
    """The number of pictures of each run of the encoder's first convolution, from now on."""
    runs: list[int] = []
    first = next(module for module in encoder.modules() if isinstance(module, nn.Conv2d))
    first.register_forward_hook(lambda module, args, output: runs.append(len(args[0])))
    return runs


@pytest.fixture(params=["conv", "patches"])
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_vlm(frontend=request.param)[0].requires_grad_(False)


def test_remembered_features_are_the_encoders_own_to_the_bit_and_are_made_once(model: Any, tmp_path: Path) -> None:
    tower, store = model.model.vision_tower, DiskFeatureCache(tmp_path / "features.sqlite")
    expected = model.get_image_features(pixels(6)).pooler_output
    runs = counted(tower)
    with cached_features(tower, -1, store):
        part = model.get_image_features(pixels(6)[:2]).pooler_output
        whole = model.get_image_features(pixels(6)).pooler_output
        again = model.get_image_features(pixels(6).flip(0)).pooler_output
    assert runs == [2, 4]
    for states, wanted in ((part, expected[:2]), (whole, expected), (again, expected[::-1])):
        assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(states, wanted, strict=True))
    assert "forward" not in vars(tower)
    with cached_features(tower, -1, DiskFeatureCache(tmp_path / "features.sqlite")):
        model.get_image_features(pixels(6))
    assert runs == [2, 4]


def test_a_picture_that_comes_twice_in_a_batch_runs_once(model: Any, tmp_path: Path) -> None:
    tower = model.model.vision_tower
    runs = counted(tower)
    with cached_features(tower, -1, DiskFeatureCache(tmp_path / "f.sqlite")):
        states = tower(pixels(2)[[0, 1, 0]]).hidden_states[-1]
    assert runs == [2] and torch.equal(states[0], states[2]) and not torch.equal(states[0], states[1])


def test_other_weights_pixels_or_precision_are_other_features(model: Any, tmp_path: Path) -> None:
    tower, store = model.model.vision_tower, DiskFeatureCache(tmp_path / "f.sqlite")
    runs = counted(tower)
    with cached_features(tower, -1, store):
        before = tower(pixels(1)).hidden_states[-1]
        tower(pixels(1) + 1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            tower(pixels(1))
    assert runs == [1, 1, 1]
    next(tower.parameters()).add_(0.1)
    with cached_features(tower, -1, store):
        after = tower(pixels(1)).hidden_states[-1]
    assert runs == [1, 1, 1, 1] and not torch.equal(before, after)


def test_a_pass_that_keeps_its_own_encoding_leaves_the_memory_in_place(model: Any, tmp_path: Path) -> None:
    tower = model.model.vision_tower
    runs = counted(tower)
    with cached_features(tower, -1, DiskFeatureCache(tmp_path / "f.sqlite")):
        for _ in range(2):
            with EncoderOutput().around(model, family_of(model.config)):
                tower(pixels(2))
                tower(pixels(2))
    assert runs == [2] and "forward" not in vars(tower)


def test_a_trained_encoder_and_a_damaged_store_are_refused(model: Any, tmp_path: Path) -> None:
    tower = model.model.vision_tower
    (tmp_path / "bad.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(BadInput, match=r"remove it"):
        DiskFeatureCache(tmp_path / "bad.sqlite")
    next(tower.parameters()).requires_grad_(True)
    with pytest.raises(BadInput, match="freeze it"), cached_features(tower, -1, DiskFeatureCache(tmp_path / "f.sqlite")):
        pass


def test_two_writers_of_one_key_keep_the_first(tmp_path: Path) -> None:
    one, other = DiskFeatureCache(tmp_path / "f.sqlite"), DiskFeatureCache(tmp_path / "f.sqlite")
    one.put({b"a": torch.ones(2)})
    other.put({b"a": torch.zeros(2), b"b": torch.zeros(1)})
    assert torch.equal(one.get([b"a"])[b"a"], torch.ones(2)) and set(one.get([b"a", b"b", b"c"])) == {b"a", b"b"}
    with sqlite3.connect(tmp_path / "f.sqlite") as store:
        assert store.execute("SELECT count(*) FROM hashed_feature").fetchone() == (2,)


def test_memory_keeps_what_it_has_room_for_and_gives_the_encoders_own_features(model: Any) -> None:
    tower = model.model.vision_tower
    expected = tower(pixels(6), output_hidden_states=True).hidden_states[-1]
    runs = counted(tower)
    one = expected[0].nbytes
    with cached_features(tower, -1, MemoryFeatureCache(limit_gib=4.5 * one / 2**30)):
        for _ in range(2):
            assert torch.allclose(tower(pixels(6)).hidden_states[-1], expected, atol=1e-6)
    assert runs == [6, 2], "two did not fit, and are made anew"
