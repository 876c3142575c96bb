"""Taps in every family: what is seen at a site is the library's own hidden state, and an edit changes what follows and nothing before."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers.family_askers import ASKS, built
from helpers.tiny_families import NAMES, features, inputs, tiny
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.activations import FactorQuestion, capture
from theodolite.models.families import FAMILIES, image_token_id
from theodolite.models.taps import layer_sites, touching
from theodolite.models.vision_features import encode_pictures

every_family = pytest.mark.parametrize("name", NAMES)
QUESTION = FactorQuestion("colour", "what colour", ("red", "blue"))


def own_states(name: str, model: Any, given: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By layer: the hidden states that the library's own forward gives out (the last behind its norm), and what a tap saw in that pass."""
    seen: dict[str, Tensor] = {}
    sites = layer_sites(model)
    with torch.no_grad(), touching(model, {site: lambda hidden, site=site: seen.update({site: hidden.clone()}) for site in sites}):  # type: ignore[misc]
        states = model(**given, use_cache=False, output_hidden_states=True).hidden_states
    assert len(states) == len(sites) + 1
    return dict(zip(sites, states[1:], strict=True)), seen


@pytest.mark.contract("taps")
@every_family
def test_a_tap_sees_the_hidden_states_of_the_librarys_own_forward_to_the_bit(name: str) -> None:
    model = tiny(name, text_layers=3)[0]
    own, seen = own_states(name, model, inputs(name, model))
    with torch.no_grad():
        seen["layer.3"] = model.get_submodule(FAMILIES[name].language_model).norm(seen["layer.3"])
    assert set(seen) == set(own) == {"layer.1", "layer.2", "layer.3"}
    assert all(torch.equal(seen[site], own[site]) for site in own)
    assert not torch.allclose(own["layer.1"], own["layer.2"], atol=1e-2)


@pytest.mark.contract("taps")
@every_family
def test_what_is_captured_of_a_picture_is_what_the_librarys_own_forward_makes_of_it(name: str) -> None:
    """Mean over vision tokens, from rows of many questions and choices, against a sequence of the question alone."""
    model, processor, pool = built(name)
    asker = LocalAsker(model, processor)
    questions = (QUESTION, FactorQuestion("shape", "what shape a b c", ("round", "a b c")))
    activations = capture(asker, pool, {0: questions, 1: questions}, np.arange(1), 0)
    assert activations.sites == ("encoder", "connector", "layer.1", "layer.2")
    for number in range(2):
        pixels = asker.model_inputs(pool).inputs(pool[number : number + 1])
        turn = asker.model_inputs(pool).question_tokenizer.tokenize(QUESTION.text, QUESTION.choices[0])
        ids = torch.tensor([turn.prefix + turn.question])
        vision, family = ids == image_token_id(model.config), FAMILIES[name]
        types = {} if family.token_types is None else {family.token_types: vision.long() * (family.typed_tokens == "picture")}
        own, _ = own_states(name, model, {"input_ids": ids, **pixels, **types})
        expected = {"connector": torch.cat(features(model, pixels)), "layer.1": own["layer.1"][vision]}
        for site, tokens in expected.items():
            np.testing.assert_allclose(activations.mean(site)[number], tokens.mean(dim=0).numpy(), atol=1e-4)
        # The library gives its last state out behind the final norm, as the answer's is.
        np.testing.assert_allclose(activations.answer("colour")[number], own["layer.2"][0, -1].numpy(), atol=1e-4)


@pytest.mark.contract("taps")
@every_family
def test_an_edit_at_a_site_changes_what_comes_after_it_and_nothing_before(name: str) -> None:
    """Vision tokens are what an edit moves; behind the last layer nothing reads them, so there the answers stay to the bit."""
    model, processor, pool = built(name)
    asker = LocalAsker(model, processor)
    sites = ("connector", *layer_sites(model))
    (rows,) = asker.groups(pool, ASKS)
    batch = asker.collate(rows, pool)

    def passed(edited: str | None) -> tuple[dict[str, Tensor], Tensor]:
        seen: dict[str, Tensor] = {}

        def keep(site: str, tokens: Tensor) -> Tensor:
            seen[site] = tokens + 0.5 * (site == edited) * torch.linspace(-1, 1, tokens.shape[-1])
            return seen[site]

        edits = {site: lambda tokens, pictures, site=site: keep(site, tokens) for site in sites}
        with torch.no_grad():
            return seen, asker.score(batch, asker.encode_batch(batch, pool), edits).choices  # type: ignore[arg-type]

    plain, scores = passed(None)
    assert torch.equal(scores, asker.score(batch, asker.encode_batch(batch, pool)).choices.detach())
    for at, edited in enumerate(sites):
        seen, moved = passed(edited)
        changed = [site for site in sites if not torch.equal(seen[site], plain[site])]
        assert changed == list(sites[at:])
        assert torch.equal(moved, scores) == (edited == sites[-1])


@pytest.mark.contract("taps")
@every_family
def test_the_encoders_site_is_what_the_connector_is_given(name: str) -> None:
    model, processor, pool = built(name)
    asker, given = LocalAsker(model, processor), []
    hook = model.get_submodule(FAMILIES[name].connector[0]).register_forward_pre_hook(lambda module, args: given.append(args[0].detach()))
    pixels = asker.model_inputs(pool).inputs(pool)
    with torch.no_grad():
        vision_features = encode_pictures(model, pixels, len(pool), patches=True)
        hook.remove()
        assert vision_features.patches is not None
        stock = torch.cat([part.flatten(0, -2) for part in given])
        assert torch.equal(vision_features.patches.flatten(0, 1), stock)
        assert torch.equal(vision_features.tokens.flatten(0, 1), torch.cat(features(model, pixels)))
