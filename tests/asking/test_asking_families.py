"""Every family of the table is asked alike: shared or not, a choice gets the score of a sequence of its own in the library's forward."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.family_askers import ASKS, alone, built
from helpers.tiny_families import NAMES
from theodolite.asking.answer import answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.asking.rows import TokenRow
from theodolite.models.export import export_vlm
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.load import load_vlm

# PaliGemma's pictures see the question.
SHARING = tuple(name for name in NAMES if name != "paligemma")


@pytest.mark.contract("asking")
@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_asked_as_its_own_forward_answers_shared_or_not(name: str) -> None:
    model, processor, pool = built(name)
    expected = [answer_from_scores(alone(model, processor, pool, ask)) for ask in ASKS]
    for share, batch in ((True, None), (True, 1), (False, None)):
        asker = LocalAsker(model, processor, batch, share=share)
        for answer, own in zip(asker.ask(pool, ASKS), expected, strict=True):
            np.testing.assert_allclose(answer.probabilities, own.probabilities, atol=1e-4)
            assert answer.outside == pytest.approx(own.outside, abs=1e-4)
        assert bool(asker.notices) == (name == "paligemma")


def rows_of_asks(asker: LocalAsker, pool: np.ndarray) -> list[TokenRow]:
    return [row for rows in asker.groups(pool, ASKS) for row in rows]


@pytest.mark.contract("shared prefix")
@pytest.mark.parametrize("name", SHARING)
def test_a_picture_runs_once_for_all_of_its_questions_and_a_question_once_for_its_choices(name: str) -> None:
    model, processor, pool = built(name)
    shared, apart = (rows_of_asks(LocalAsker(model, processor, share=share), pool) for share in (True, False))
    assert sorted(row.picture for row in shared) == [0, 1] and all(len(row.ends) == 3 for row in shared)
    assert len(apart) == len(ASKS) and all(len(row.ends) == 1 for row in apart)
    assert sum(len(row.tokens) for row in shared) < 0.75 * sum(len(row.tokens) for row in apart)


@pytest.mark.contract("shared prefix", no="its pictures see the question")
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(SHARING)))
def test_where_a_picture_sees_the_question_every_choice_has_a_picture_of_its_own(name: str) -> None:
    model, processor, pool = built(name)
    asker = LocalAsker(model, processor)
    assert len(rows_of_asks(asker, pool)) == sum(len(ask.choices) for ask in ASKS)
    (notice,) = asker.notices
    assert notice == f"in {name} the picture sees the question, so every question runs with a picture of its own"
    adapt(model, Adaptation("mixed", "2d"))
    assert len(rows_of_asks(LocalAsker(model, processor), pool)) == 2, "mixed attention hides the question from the picture"


@pytest.mark.contract("mixed, 2D")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("adaptation", [Adaptation("mixed", "2d"), Adaptation("native", "2d")], ids=str)
def test_an_adapted_model_of_every_family_is_asked_alike_shared_or_not(name: str, adaptation: Adaptation) -> None:
    model, processor, pool = built(name)
    stock = LocalAsker(model, processor).ask(pool, ASKS)
    adapt(model, adaptation)
    asker = LocalAsker(model, processor)
    shared, apart = asker.ask(pool, ASKS), LocalAsker(model, processor, share=False).ask(pool, ASKS)
    for one, other in zip(shared, apart, strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-4)
    assert bool(asker.notices) == (name == "paligemma" and adaptation.attention == "native")
    changes = adaptation.attention == "mixed" or family_of(model.config).positions == "1d"
    moved = max(np.abs(one.probabilities - other.probabilities).max() for one, other in zip(shared, stock, strict=True))
    assert (moved > 1e-4) == changes, moved


@pytest.mark.contract("export")
@pytest.mark.parametrize("name", NAMES)
def test_every_family_loads_from_a_folder_without_torchvision_and_answers_alike(name: str, tmp_path: Path) -> None:
    model, processor, pool = built(name)
    export_vlm(model, processor, tmp_path)
    loaded, found = load_vlm(tmp_path)
    for one, other in zip(LocalAsker(model, processor).ask(pool, ASKS), LocalAsker(loaded, found).ask(pool, ASKS), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
