"""The arms of a tour: what each is asked, and the pictures and questions that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from theodolite.data.examples import ExampleSet, draw_questions, official_examples, question_rng
from theodolite.data.partners import draw_partners
from theodolite.records.errors import BadInput
from theodolite.training.recipe import Recipe, easy_vqa_official, tour_easy_vqa, tour_shapes
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World

STRENGTH = 0.8
NUM_PICTURES = 12_000


@dataclass(frozen=True)
class Arm:
    """One way to ask. Arms of one `comparison` must see the same pictures in the same order and answer as many questions.

    `source` says where its questions come from: *policy* asks pictures drawn from the correlated prior what the policy says, in the world's
    wordings; *official* takes the rows of the world's own training split as they are.
    """

    name: str
    policy: str
    recipe: Recipe
    strength: float
    num_pictures: int
    source: Literal["policy", "official"] = "policy"
    # The arms that it is compared with, by a word of theirs; empty: all of its source.
    among: str = ""

    @property
    def comparison(self) -> str:
        return self.among or self.source


def policy_arms(recipe: Recipe, target: str, filler: str, strength: float, num_pictures: int) -> tuple[Arm, ...]:
    """The three policies of a tour, two questions a picture each: where the target is not asked, the filler is.

    *agree* asks the target only of scenes that follow the correlation; *all* asks it of every scene; *odd* asks it of every scene, and a
    second time of those that break the correlation.
    """
    policies = {
        "agree": f"{target}:agree,{filler}:odd,{filler}",
        "all": f"{target},{filler}",
        "odd": f"{target},{target}:odd,{filler}:agree",
    }
    return tuple(Arm(name, policy, recipe, strength, num_pictures) for name, policy in policies.items())


def shapes_arms(strength: float = STRENGTH, num_pictures: int = NUM_PICTURES) -> tuple[Arm, ...]:
    """The tour of the shapes world: shape is the target, row the filler, which nothing is correlated with."""
    return policy_arms(tour_shapes(), "shape", "row", strength, num_pictures)


def easy_vqa_arms(strength: float = STRENGTH) -> tuple[Arm, ...]:
    """The tour of easy-VQA: every official question of every training picture, then the three policies on a correlated selection.

    The policies choose among the official questions, so only pictures that the package asks both shape and colour of can serve. Its
    questions are about nothing else, so here the filler is colour itself, which the correlation ties to the target: colour is
    asked in every arm, and leaking makes it *entangled*, not a mere shadow.
    """
    world = EasyVQA()
    every = Arm(
        name="every",
        policy=",".join(query.name for query in world.queries),
        recipe=easy_vqa_official(),
        strength=0.0,
        num_pictures=len(world.official_split("train").scenes),
        source="official",
    )
    tied = EasyVQA().correlate(*world.default_correlation, strength)
    selected = tied.max_scenes(eligible=tied.asked_officially(tied.policy("shape,colour")))
    return (every, *policy_arms(tour_easy_vqa(), "shape", "colour", strength, selected))


def examples_of(arm: Arm, world: World, size: int, seed: int) -> ExampleSet:
    """The pictures of an arm, and the questions asked of each. Arms of one comparison get the same pictures from the same seed.

    With `interventional` they have partners (`data.partners`). Raises `BadInput` if official questions need any.
    """
    if arm.source == "official":
        if arm.recipe.stage.pair_frac:
            raise BadInput(f"{arm.name} is asked official questions, which have no partners; ask a policy's, or leave interventional out")
        return official_examples(world, size, arm.num_pictures)
    policy = world.policy(arm.policy)
    scenes = world.sample_asked(arm.num_pictures, policy, np.random.default_rng([seed, 0]))
    queries = policy.draw(scenes, world.prior, question_rng(seed))
    partners = draw_partners(world, scenes, queries, seed, arm.recipe.stage.pair_frac, size)
    return ExampleSet(world.render(scenes, size), draw_questions(world, scenes, policy, seed), partners=partners)


# The arms of the tour of each world.
TOURS = {Shapes.name: shapes_arms, EasyVQA.name: easy_vqa_arms}
