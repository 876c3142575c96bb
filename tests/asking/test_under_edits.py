"""Several edits of one batch: each answered as alone, from the edited layer on, with every picture encoded once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.family_askers import ASKS, built
from helpers.tiny_families import NAMES
from theodolite.asking.local import LocalAsker
from theodolite.models.taps import layers_of
from theodolite.models.vision_features import FeatureStore, VisionFeatures


def rolled(tokens: Tensor, numbers: Tensor) -> Tensor:
    """Channels moved by one: a multiple of the tokens would be undone by the next norm."""
    return tokens.roll(1, dims=2)


def turned(tokens: Tensor, numbers: Tensor) -> Tensor:
    return tokens.flip(1) + numbers.to(tokens)[:, None, None]


EDITS = {"first": ("connector", rolled), "second": ("layer.1", rolled), "third": ("layer.1", turned), "last": ("layer.2", turned)}


def numbers(answers: Any) -> np.ndarray:
    return np.concatenate([np.array(answer.probabilities) for answer in answers])


@pytest.mark.parametrize("name", NAMES)
def test_each_edit_is_answered_as_alone(name: str) -> None:
    model, processor, pictures = built(name)
    asker = LocalAsker(model, processor)
    together = asker.ask_under_edits(pictures, ASKS, EDITS)
    plain = numbers(asker.ask(pictures, ASKS))
    for key, (site, edit) in EDITS.items():
        alone = numbers(asker.ask(pictures, ASKS, edits={site: edit}))
        np.testing.assert_array_equal(numbers(together[key]), alone)
        assert key == "last" or np.abs(alone - plain).max() > 1e-4, "after the last layer answers come from other positions"
    np.testing.assert_array_equal(numbers(asker.ask(pictures, ASKS)), plain)


def test_layers_before_an_edit_run_once_and_pictures_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, processor, pictures = built("llava")
    asker, runs, encoded = LocalAsker(model, processor), [0, 0], list[int]()
    for number, layer in enumerate(layers_of(model)):

        def counting(*args: Any, number: int = number, stock: Any = layer.forward, **kwargs: Any) -> Any:
            runs[number] += 1
            return stock(*args, **kwargs)

        monkeypatch.setattr(layer, "forward", counting)
    encode = LocalAsker._encode

    def recording(self: LocalAsker, pictures: np.ndarray, patches: bool) -> VisionFeatures:
        encoded.append(len(pictures))
        return encode(self, pictures, patches)

    monkeypatch.setattr(LocalAsker, "_encode", recording)
    with asker.keeping_features():
        asker.ask_under_edits(pictures, ASKS, EDITS)
        assert runs == [2, 4], "a plain pass; then both layers at the connector, the second after each edit of the first"
        asker.ask(pictures[:1], [ask for ask in ASKS if ask.picture == 0])
    assert encoded == [2], "of both pictures, once"
    asker.ask(pictures, ASKS)
    assert encoded == [2, 2], "nothing is kept outside"


def test_stored_features_are_those_of_an_encoding_and_full_stores_encode_again() -> None:
    draw = torch.Generator().manual_seed(0)
    features = VisionFeatures(torch.randn(4, 3, 2, generator=draw), (torch.randn(4, 3, 2, generator=draw),), tile=3)
    asked: list[list[int]] = []

    def encode(keys: list[str]) -> Any:
        def of(missing: list[int]) -> VisionFeatures:
            asked.append([int(keys[number]) for number in missing])
            return features.take(torch.tensor(asked[-1]))

        return of

    store = FeatureStore(3 * 2 * 3 * 2 * 4)  # three pictures of two tensors
    for keys in (["1", "0"], ["0", "2", "1"], ["3", "0", "3"]):
        given = store.of(keys, encode(keys))
        expected = features.take(torch.tensor([int(key) for key in keys]))
        assert torch.equal(given.tokens, expected.tokens) and torch.equal(given.past[0], expected.past[0]) and given.tile == 3
    assert asked == [[1, 0], [2], [3, 3]] and len(store) == 3
