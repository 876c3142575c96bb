"""Every family of the table is surveyed inside and out, from a model object in Python; and a stopped memory is met by smaller batches."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from helpers.survey_records import UNTRAINED
from helpers.tiny_families import NAMES, tiny
from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.asking.model_inputs import survey_size
from theodolite.measurement.internals.registry import MEASURES, measures_named
from theodolite.measurement.pairs.plan import Plan, plan_world
from theodolite.measurement.survey.result import SurveyResult
from theodolite.measurement.survey.session import survey_model
from theodolite.models.processor import ProcessorParts
from theodolite.models.taps import layer_sites, touching, watching_attention
from theodolite.records.errors import BadInput, UnknownName
from theodolite.records.inside import Inside

FACTORS = ("shape", "colour")
# What passes through the model again; the other measures are arithmetic on what the ladder's pass left.
PASSING = ("ladder", "likeness", "allocation", "fisher", "causal", "gap", "words")
# Features of inner encoder layers go past the connector's output, to which a direction there says nothing.
DEEP = ("qwen3_vl",)
REPEATED = ("llava", "qwen2_5_vl")  # a square and any number of vision tokens; the other families are repeated with --exhaustive


def small_plan(size: int) -> Plan:
    """Pairs of six scenes in two factors, and a few questions on the training distribution."""
    plan = plan_world(WORLD, WORLD.policy("shape"), 6, 0, size)
    kind = pl.col("kind")
    pairs = plan.rows.filter((kind != "training") & ((kind != "intervention") | pl.col("factor").is_in(FACTORS)))
    return replace(plan, rows=pl.concat([pairs, plan.rows.filter(kind == "training").head(6)]))


def surveyed(name: str, measures: tuple[str, ...] = tuple(MEASURES)) -> SurveyResult:
    model, image_processor, tokenizer = tiny(name)
    plan = small_plan(min(survey_size(image_processor), 56))
    return survey_model(
        (model, ProcessorParts(image_processor, tokenizer, model.config)), plan, title=name, measures=measures, thresholds=UNTRAINED
    )


@cache
def first(name: str) -> SurveyResult:
    return surveyed(name)


def inside(name: str) -> Inside:
    found = first(name).record.inside
    assert found is not None
    return found


@pytest.mark.contract("inside")
@pytest.mark.parametrize("name", NAMES)
def test_every_measure_of_the_inside_gives_a_record_of_every_family(name: str) -> None:
    found = inside(name)
    assert found.num_scenes == 6 and found.measures == tuple(MEASURES)
    assert all(getattr(found, measure) is not None for measure in MEASURES)
    assert found.likeness is not None and set(found.likeness.sites) == {"encoder", "connector", "layer.1", "layer.2"}
    assert found.fisher is not None and found.fisher.trace.value > 0
    assert found.allocation is not None and all(0 < layer.share.value < 1 for layer in found.allocation.layers.values())
    assert found.geometry is not None and set(found.geometry.sites) == set(found.likeness.sites)
    assert found.causal is not None and found.causal.sites == ("connector", "layer.1")
    assert {each.site for each in found.causal.mean} == {"connector", "layer.1"}
    assert found.identifiability is not None and found.identifiability.reason is None
    assert all(set(site.factors) == set(FACTORS) for site in found.identifiability.sites.values())


def patched(name: str) -> set[tuple[str, str]]:
    causal = inside(name).causal
    assert causal is not None and {(each.factor, each.site) for each in causal.erase} == {(each.factor, each.site) for each in causal.patch}
    return {(each.factor, each.site) for each in causal.patch}


@pytest.mark.contract("directions")
@pytest.mark.parametrize("name", sorted(set(NAMES) - set(DEEP)))
def test_factors_are_patched_and_erased_at_the_connector_and_in_layers(name: str) -> None:
    assert patched(name) == {(factor, site) for factor in FACTORS for site in ("connector", "layer.1")}


@pytest.mark.contract("directions", no="not at the connector, which features of inner encoder layers go past")
@pytest.mark.parametrize("name", DEEP)
def test_where_features_go_past_the_connector_factors_are_patched_and_erased_in_layers_alone(name: str) -> None:
    assert patched(name) == {(factor, "layer.1") for factor in FACTORS}


@pytest.mark.contract("ladder")
@pytest.mark.parametrize("name", NAMES)
def test_the_ladder_of_every_family_has_a_rung_at_every_site_and_ends_in_words(name: str) -> None:
    ladder = inside(name).ladder
    assert ladder is not None and ladder.left_out == {} and tuple(ladder.factors) == FACTORS
    for factor, found in ladder.factors.items():
        sites = ["encoder", "connector", "layer.1", "layer.2", "answer", *(["spoken"] if factor == "shape" else [])]
        assert [rung.site for rung in found.rungs] == sites and found.answer_query == "shape"
        assert all((rung.drop is None) == (rung.site == "encoder") for rung in found.rungs)
        assert all(rung.control is None for rung in found.rungs), "six scenes repeat no combination of the other factors"
        assert len({rung.accuracy.num_scenes for rung in found.rungs}) == 1


@pytest.mark.contract("survey")
@pytest.mark.parametrize("name", NAMES)
def test_every_family_is_surveyed(name: str) -> None:
    found = first(name)
    assert bool(found.run.notices) == (name == "paligemma")
    assert found.run.pairs_per_s and set(MEASURES) <= set(found.run.seconds_by_part)
    assert found.record.shadows.cells and found.record.model.family == name


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in REPEATED else pytest.mark.exhaustive) for name in NAMES])
def test_a_second_survey_repeats_to_the_byte(name: str) -> None:
    again = surveyed(name, PASSING).record
    without = inside(name).model_copy(update={"measures": PASSING, "geometry": None, "identifiability": None})
    assert again.to_json() == first(name).record.model_copy(update={"inside": without}).to_json()


def test_a_model_object_and_a_world_are_enough_in_python() -> None:
    model, processor = tiny_vlm()
    found = survey_model((model, processor), plan_world(WORLD, WORLD.policy("shape"), 3, 0, 64))
    assert found.record.inside is None and found.record.model.family == "llava"
    with pytest.raises(UnknownName, match="no measure is called 'shadow'"):
        measures_named("ladder,shadow")
    assert (
        measures_named("all") == tuple(MEASURES) and measures_named("shadows") == () and measures_named("gap, ladder") == ("ladder", "gap")
    )


def asks() -> tuple[np.ndarray, list[Question]]:
    pictures = WORLD.render(WORLD.sample(6, np.random.default_rng(0)))
    return pictures, [Question(number, "what is its shape?", ("round", "square")) for number in range(6)]


def test_a_batch_that_does_not_fit_is_halved_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that runs out beyond two rows, as the allocator says it."""
    model, processor = tiny_vlm()
    pictures, questions = asks()
    whole = LocalAsker(model, processor).ask(pictures, questions)
    asker, own = LocalAsker(model, processor), LocalAsker.score

    def cramped(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        if len(batch.pictures) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return own(self, batch, vision_features, edits)

    monkeypatch.setattr(LocalAsker, "score", cramped)
    for one, other in zip(whole, asker.ask(pictures, questions), strict=True):
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-6)
    assert asker.notices == [
        "6 rows at once did not fit into memory; going on with 3",
        "3 rows at once did not fit into memory; going on with 1",
    ]

    def none(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(LocalAsker, "score", none)
    with pytest.raises(BadInput, match="memory is too small for a single question"):
        LocalAsker(model, processor).ask(pictures, questions)
    monkeypatch.setattr(LocalAsker, "score", lambda *given: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        LocalAsker(model, processor).ask(pictures, questions)


def test_rows_of_like_length_run_together_in_powers_of_two() -> None:
    model, processor = tiny_vlm()
    pictures, _ = asks()
    texts = ("what is its shape?", "would you say that it is on dark ground?")
    mixed = [Question(number, texts[number % 2], ("round", "the top row")) for number in range(6)]
    groups = LocalAsker(model, processor).groups(pictures, mixed)
    lengths = [len(row.tokens) for rows in groups for row in rows]
    assert lengths == sorted(lengths) and {len(rows) for rows in LocalAsker(model, processor, 2).groups(pictures, mixed)} == {2}
    batch_sizer = LocalAsker(model, processor).batch_sizer
    assert batch_sizer.rows_of_width(64) == 64 and batch_sizer.rows_of_width(100_000) == 1
    assert all(bin(batch_sizer.rows_of_width(width)).count("1") == 1 for width in range(10, 3000, 97))


def test_taps_change_what_goes_on_and_watching_attention_leaves_the_back_end_as_it_was() -> None:
    model, processor = tiny_vlm()
    pictures, questions = asks()
    asker = LocalAsker(model, processor)
    before = asker.ask(pictures, questions)
    seen: list[tuple[int, tuple[int, ...]]] = []
    with watching_attention(model, lambda number, part: seen.append((number, tuple(part.shape)))):
        watched = asker.ask(pictures, questions)
    assert [number for number, _ in seen] == [0, 1] and all(shape[2] == shape[3] for _, shape in seen)
    assert model.model.language_model.config._attn_implementation == "sdpa"
    np.testing.assert_allclose([each.probabilities for each in watched], [each.probabilities for each in before], atol=1e-5)
    assert layer_sites(model) == ("layer.1", "layer.2")
    erased = asker.ask(pictures, questions, edits={"layer.1": lambda tokens, numbers: torch.zeros_like(tokens)})
    assert max(np.abs(one.probabilities - other.probabilities).max() for one, other in zip(before, erased, strict=True)) > 1e-6
    same = asker.ask(pictures, questions, edits={"layer.1": lambda tokens, numbers: tokens, "connector": lambda tokens, numbers: tokens})
    assert all(np.array_equal(one.probabilities, other.probabilities) for one, other in zip(before, same, strict=True))
    with (
        pytest.raises(ValueError, match=r"'layer.3' is no layer of this model; it has layer.1 to layer.2"),
        touching(model, {"layer.3": lambda hidden: None}),
    ):
        pass
