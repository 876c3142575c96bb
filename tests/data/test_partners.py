"""Partners of training examples: one factor changed, truths of the world, and their rows in a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.data.collate import Collator
from theodolite.data.examples import ExampleSet, draw_questions, question_rng
from theodolite.data.partners import Partners, draw_partners
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.objectives.interventional import InterventionalConfig
from theodolite.objectives.visual import AuxiliaryConfig
from theodolite.records.errors import BadInput
from theodolite.studies.engine.arms import easy_vqa_arms, examples_of, shapes_arms
from theodolite.training.recipe_data import file_recipe_data, shapes_recipe_data
from theodolite.training.recipes import WorldQuestions, laver_clip, smol, tiny_laver
from theodolite.training.smol_data import packaged_recipe_data
from theodolite.worlds.easy_vqa.data import SPLITS
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.factors import Scenes
from theodolite.worlds.query import Query
from theodolite.worlds.shapes.world import Shapes

POLICY = "shape,row,colour=red"
INTERVENTIONAL = AuxiliaryConfig(interventional=InterventionalConfig())


@cache
def scenes(number: int = 40) -> Scenes:
    return WORLD.sample(number, np.random.default_rng(0))


def queries(number: int = 40) -> list[list[Query]]:
    return WORLD.policy(POLICY).draw(scenes(number), WORLD.prior, question_rng(0))


@cache
def partners(frac: float = 1.0, number: int = 40, seed: int = 0) -> Partners:
    drawn = draw_partners(WORLD, scenes(number), queries(number), seed, frac)
    assert drawn is not None
    return drawn


def paired_examples(frac: float = 1.0) -> ExampleSet:
    asked = draw_questions(WORLD, scenes(), WORLD.policy(POLICY), 0)
    return ExampleSet(WORLD.render(scenes()), asked, partners=partners(frac))


def test_a_partner_is_the_scene_with_one_factor_changed_and_its_truths_are_the_worlds() -> None:
    drawn = partners()
    assert drawn.number.tolist() == list(range(40))
    num_moving = 0
    for at, factor in enumerate(drawn.factor):
        base = scenes().scene(at)
        others = [value for value in WORLD.space[factor].values if value != base.values[factor]]
        changed = [Scenes.of(WORLD.space, [base.do(**{factor: value})]) for value in others]
        (match,) = (each for each in changed if np.array_equal(WORLD.render(each)[0], drawn.pictures[at]))
        moves = [
            query.choices[int(query.truth(scenes().take(np.array([at])))[0])] != query.choices[int(query.truth(match)[0])]
            for query in queries()[at]
        ]
        assert drawn.moves[at] == tuple(moves)
        assert not any(moves) or factor in ("shape", "row", "colour")
        num_moving += sum(moves)
    assert num_moving > 3


def test_every_factor_is_as_likely_and_a_seed_gives_the_same() -> None:
    many = WORLD.sample(2000, np.random.default_rng(3))
    drawn = draw_partners(WORLD, many, [[]] * 2000, 0, 1.0, 32)
    assert drawn is not None
    counts = Counter(drawn.factor)
    assert set(counts) == set(WORLD.space.names) and max(abs(count - 200) for count in counts.values()) < 60
    again, other = partners.__wrapped__(), partners(seed=1)
    assert np.array_equal(again.pictures, partners().pictures) and again.moves == partners().moves
    assert not np.array_equal(other.pictures, partners().pictures)


def test_a_fraction_has_partners_and_a_smaller_one_has_fewer_of_the_same() -> None:
    half, quarter = partners(0.5), partners(0.25)
    assert [int((each.number >= 0).sum()) for each in (half, quarter)] == [20, 10] == [len(half.pictures), len(quarter.pictures)]
    assert draw_partners(WORLD, scenes(), queries(), 0, 0.0) is None
    for example in np.flatnonzero(quarter.number >= 0).tolist():
        smaller, larger, whole = quarter.of(example), half.of(example), partners().of(example)
        assert smaller is not None and larger is not None and whole is not None
        assert quarter.factor[smaller] == half.factor[larger] == partners().factor[whole]
        assert np.array_equal(quarter.pictures[smaller], partners().pictures[whole])
        assert quarter.moves[smaller] == partners().moves[whole]


class Lacking(Shapes):
    """A world that has no picture of a changed scene with an odd nuisance seed."""

    def counterparts(self, changed: Scenes, factor: Sequence[str]) -> tuple[Scenes, np.ndarray]:
        return changed, changed.nuisance % 2 == 0


def test_a_scene_without_a_counterpart_has_no_partner() -> None:
    drawn = draw_partners(Lacking(WORLD.prior), scenes(), queries(), 0, 1.0)
    assert drawn is not None
    is_there = scenes().nuisance % 2 == 0
    assert 0 < is_there.sum() < 40 and np.array_equal(drawn.number >= 0, is_there)
    for number, example in enumerate(np.flatnonzero(is_there)):
        assert np.array_equal(drawn.pictures[number], partners().pictures[example])
        assert (drawn.moves[number], drawn.factor[number]) == (partners().moves[example], partners().factor[example])


def test_partners_are_rows_with_the_same_questions_and_masks_and_without_answers() -> None:
    _, processor = tiny_vlm()
    examples = paired_examples(0.5)
    assert examples.partners is not None
    make = Collator(examples, QuestionTokenizer(processor, 64), Pixels(processor.image_processor))
    plain = Collator(replace(examples, partners=None), make.tokenizer, make.pixels)
    draws = [(1, index) for index in range(8)]
    batch, base = make(draws), plain(draws)
    paired = [row for row in range(8) if examples.partners.of(row) is not None]
    assert 0 < len(paired) < 8 and len(batch["input_ids"]) == 8 + len(paired)
    for name in ("input_ids", "sample", "branch", "picture", "cell", "rank", "dither"):
        assert torch.equal(batch[name][:8], base[name]), name
    assert torch.equal(batch["predicts"], base["predicts"]) and torch.equal(batch["labels"], base["labels"])
    assert torch.equal(batch["pixel_values"][:8], base["pixel_values"]) and "pair_moves" not in base
    shown = np.stack([examples.partners.pictures[examples.partners.of(row)] for row in paired])  # type: ignore[index]
    assert torch.equal(batch["pixel_values"][8:], make.pixels(shown))
    width, (one, other) = batch["input_ids"].shape[1], batch["pair_positions"]
    firsts = {int(position) for position in batch["predicts"][::2]}  # each answer is one word and the end token
    expected = []
    for number, row in enumerate(paired, start=8):
        tokenized = [make.tokenizer.tokenize(item.question, item.answer) for item in examples.questions[row]]
        prompts = tokenized[0].prefix + tuple(token for each in tokenized for token in each.question)
        assert batch["input_ids"][number, : len(prompts)].tolist() == list(prompts)
        assert (batch["sample"][number, len(prompts) :] == -1).all()
        for name in ("rank", "dither"):
            assert torch.equal(batch[name][number], batch[name][row]), name
        expected += [(row, branch) for branch in range(1, len(tokenized) + 1)]
    assert [(int(place) // width, int(batch["branch"].flatten()[place])) for place in one] == expected
    assert [(paired[int(place) // width - 8], int(batch["branch"].flatten()[place])) for place in other] == expected
    assert set(one.tolist()) <= firsts and not set(other.tolist()) & set(batch["predicts"].tolist())
    assert torch.equal(batch["input_ids"].flatten()[one], batch["input_ids"].flatten()[other])
    moves = [move for row in paired for move in examples.partners.moves[examples.partners.of(row)]]  # type: ignore[index]
    assert batch["pair_moves"].tolist() == moves
    assert batch["plan"].num_pairs == (len(moves) - sum(moves), sum(moves))


def test_a_batch_may_have_no_partner_and_an_example_one_question() -> None:
    _, processor = tiny_vlm()
    examples = paired_examples(0.5)
    single = replace(examples, questions=tuple(items[:1] for items in examples.questions))
    make = Collator(single, QuestionTokenizer(processor, 64), Pixels(processor.image_processor))
    assert single.partners is not None
    without, with_one = (int(np.flatnonzero((single.partners.number >= 0) == has)[0]) for has in (False, True))
    batch = make([without])
    assert batch["pair_positions"].shape == (2, 0) and batch["plan"].num_pairs == (0, 0) and len(batch["input_ids"]) == 1
    one = make([with_one])
    question = make.tokenizer.tokenize(single.questions[with_one][0].question, "red").question
    width = one["input_ids"].shape[1]
    assert one["pair_positions"][:, 0].tolist() == [64 + len(question) - 1, width + 64 + len(question) - 1]


def test_partners_of_easy_vqa_are_other_train_pictures_that_differ_in_one_factor() -> None:
    pytest.importorskip("easy_vqa")
    world = EasyVQA().correlate("shape", "colour", 0.8)
    policy = world.policy("shape,colour")
    bases = world.sample_asked(60, policy, np.random.default_rng(0))
    changed = bases.do("shape", (bases.of_factor("shape") + 1) % 3)
    nearest, is_there = world.counterparts(changed, ["shape"] * 60)
    assert is_there.mean() > 0.9
    assert np.array_equal(world.scenes(nearest.nuisance[is_there]).levels, changed.levels[is_there])
    assert set(nearest.nuisance[is_there]) <= set(SPLITS["train"]) and not (nearest.nuisance == bases.nuisance)[is_there].any()
    drawn = draw_partners(world, bases, policy.draw(bases, world.prior, question_rng(0)), 0, 1.0, 64)
    assert drawn is not None and 40 < len(drawn.pictures) <= 60
    for example in range(60):
        number = drawn.of(example)
        if number is not None:
            assert drawn.moves[number] == (drawn.factor[number] == "shape", drawn.factor[number] == "colour")


def test_arms_and_the_recipe_of_the_shapes_world_have_partners_where_the_loss_is() -> None:
    (arm, *_) = shapes_arms(num_pictures=30)
    plain = examples_of(arm, WORLD, 32, 0)
    paired = examples_of(replace(arm, recipe=replace(arm.recipe, auxiliary=INTERVENTIONAL)), WORLD, 32, 0)
    assert plain.partners is None and paired.partners is not None and paired.partners.pictures.shape == (30, 32, 32, 3)
    assert plain.pictures_sha256 == paired.pictures_sha256 and plain.questions_sha256 == paired.questions_sha256
    assert "auxiliary" not in arm.recipe.settings
    recipe = tiny_laver(laver=False, auxiliary="interventional")
    # Of pictures that break the correlation nothing is asked, and these are left out.
    data = shapes_recipe_data(replace(recipe, world=WorldQuestions("shape:agree")), 0, num_pictures=80)
    model, processor = data.start()
    made = [data.for_stage(stage, model, processor).collator.examples for stage in recipe.stages]  # type: ignore[attr-defined]
    assert [each.partners is None for each in made] == [True, False, True]
    partners, number = made[1].partners, len(made[1].questions)
    assert 40 < number < 80 and partners.number.tolist() == list(range(number))
    assert partners.moves == tuple((factor == "shape",) for factor in partners.factor) and "shape" in partners.factor


def test_data_without_pairs_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(BadInput, match="stage laver has interventional"):
        file_recipe_data(laver_clip(auxiliary="interventional"), {}, 0)
    with pytest.raises(BadInput, match="official questions have none"):
        packaged_recipe_data(smol(auxiliary="interventional"), 0)
    every, *_ = easy_vqa_arms()
    with pytest.raises(BadInput, match="no partners"):
        examples_of(replace(every, recipe=replace(every.recipe, auxiliary=INTERVENTIONAL)), EasyVQA(), 64, 0)
    tiny = tiny_laver(auxiliary="interventional")
    with pytest.raises(BadInput, match="captions have none"):
        shapes_recipe_data(replace(tiny, stages=(replace(tiny.stages[1], data="captions"),)), 0)
