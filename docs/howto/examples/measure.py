"""Two measures of your own: one of answers, and one of the inside of a model."""

import numpy as np
import polars as pl
from pydantic import Field

import theodolite as th
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.internals.directions import pictures_by_scene
from theodolite.measurement.internals.likeness import average
from theodolite.measurement.pairs.interventions import interventions_of
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.session import SurveyedModel
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.records.part import Estimate, Part
from theodolite.stats.rates import clustered_rate

world = th.Shapes().correlate("shape", "colour", strength=0.8)
model, processor = build_vlm(world.texts, seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))
result = th.survey_model((model, processor), world, policy="shape,colour", num_scenes=12)


# A measure of answers is a function of the survey's rows: here, how often the answer is the new value of the factor.
def follows_frac(rows: pl.DataFrame, factor: str) -> tuple[float, int]:
    """Share of do(factor) pairs whose second answer is the factor's new value, 0 to 1; scenes behind it."""
    pairs = rows.filter((pl.col("kind") == "intervention") & (pl.col("factor") == factor) & (pl.col("query") == factor))
    follows = (pairs["answer_after"] == pairs["value_after"]).to_numpy()
    rate = clustered_rate(follows, pairs["scene"].to_numpy(), 0.95)
    return rate.frac, rate.num_scenes


print(follows_frac(result.rows, "shape"))


# A measure of the inside is a function of a context: the model, its answers, the interventions, and captured vectors.
class TokenSpread(Part):
    """How far the vision tokens of a picture lie apart, by site: 1 less their mean pairwise cosine, 0 to 2."""

    sites: dict[str, Estimate | None] = Field(description="mean over pictures, with its interval clustered by scene")


def measure_spread(context: MeasureContext) -> TokenSpread:
    """Spread of the vision tokens of all pictures that interventions use."""
    pictures, scenes = pictures_by_scene(context.interventions)
    held = context.activations  # one pass over all pictures, made when first read
    spread = {site: 1 - np.asarray(held.likeness(site)[pictures]) for site in held.sites}
    return TokenSpread(
        sites={site: average(values, scenes, context.confidence, (0.0, 2.0)) for site, values in spread.items()}
    )


# The registry makes the context in a survey; alone, a measure can be tried like this.
surveyed = SurveyedModel.of_model(model, processor)
plan = plan_world(world, world.policy("shape,colour"), 12, 0, surveyed.size)
values = {factor.name: factor.values for factor in world.space.factors}
context = MeasureContext(
    model,
    surveyed.local,
    plan,
    result.rows,
    interventions_of(result.rows, values),
    {},
    questions_of(result.rows, world),
    0.95,
    0,
)
for site, estimate in measure_spread(context).sites.items():
    print(site, estimate)
