"""A world of your own: factors, a prior, a renderer, counterfactual pairs and queries."""

from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

import theodolite as th
from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.records.errors import UnknownName
from theodolite.worlds.factors import Factor, FactorSpace, Scenes
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Query, open_query
from theodolite.worlds.world import Pairs, World

SPACE = FactorSpace((Factor("light", ("red", "amber", "green")), Factor("sky", ("day", "night"))))
LAMPS = {"red": "#e33", "amber": "#fa0", "green": "#3c5"}


class TrafficLights(World):
    """One traffic light before a sky. At night most lights are red, if the prior says so."""

    name = "traffic_lights"
    default_correlation = ("sky", "light")

    def __init__(self, prior: Prior | None = None) -> None:
        self.prior = prior or Prior(SPACE)

    def correlate(self, cause: str, effect: str, strength: float) -> "TrafficLights":
        return TrafficLights(self.prior.correlate(cause, effect, strength))

    def sample(self, num_scenes: int, rng: np.random.Generator) -> Scenes:
        return self.prior.sample(num_scenes, rng)

    def render(self, scenes: Scenes, size: int | None = None) -> np.ndarray:
        """Pictures that depend on the factors and the nuisance seed alone: an intervention changes nothing else."""
        return np.stack([self._draw(scenes, index, size or 64) for index in range(len(scenes))])

    def _draw(self, scenes: Scenes, index: int, size: int) -> np.ndarray:
        scene = scenes.scene(index)
        shift = int(np.random.default_rng(scene.nuisance).integers(-8, 9))
        picture = Image.new("RGB", (64, 64), "#9cf" if scene.values["sky"] == "day" else "#124")
        pen = ImageDraw.Draw(picture)
        pen.rectangle((24 + shift, 8, 40 + shift, 56), fill="#222")
        for place, (name, lamp) in enumerate(LAMPS.items()):
            top = 11 + 15 * place
            pen.ellipse((26 + shift, top, 38 + shift, top + 12), fill=lamp if name == scene.values["light"] else "#444")
        return np.asarray(picture.resize((size, size)))

    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        """Each base scene once with every factor changed, and once with another nuisance seed (factor "")."""
        base = self.independent.sample(num_scenes, rng)
        variants = [base]
        for factor in SPACE.factors:
            step = rng.integers(1, len(factor.values), size=num_scenes)
            variants.append(base.do(factor.name, (base.of_factor(factor.name) + step) % len(factor.values)))
        variants.append(base.reseed(rng))
        kinds, scene = (*SPACE.names, ""), np.arange(num_scenes)
        return Pairs(
            kind="exact",
            pool=Scenes.concatenate(variants),
            scene_id=np.tile(scene, len(kinds)),
            factor=tuple(kind for kind in kinds for _ in range(num_scenes)),
            before=np.tile(scene, len(kinds)),
            after=np.arange(num_scenes, num_scenes * (len(kinds) + 1)),
        )

    @cached_property
    def queries(self) -> tuple[Query, ...]:
        """Two wordings each, so that a survey can measure how far a paraphrase moves the answer."""
        return (
            open_query(SPACE, "light", ("which light is on?", "name the light that is on.")),
            open_query(SPACE, "sky", ("is it day or night?", "what time is it, day or night?")),
        )

    def query(self, name: str) -> Query:
        for query in self.queries:
            if query.name == name:
                return query
        raise UnknownName("query", name, tuple(query.name for query in self.queries))


world = TrafficLights().correlate("sky", "light", strength=0.9)
for policy in ("light", "light:agree"):
    coverage = th.measure_coverage(world, policy)
    print(policy, coverage.coverage["light"], coverage.proxy_bits)

model = build_vlm(world.texts, seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))
result = th.survey_model(model, world, policy="light:agree", num_scenes=10)
print(result.record.shadows.verdicts)
result.save("survey")
