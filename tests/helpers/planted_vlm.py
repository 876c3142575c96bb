"""A planted model: a tiny LLaVA whose weights make its answers depend on chosen factors, and a world whose pictures encode the factors.

Each colour channel of a picture holds one factor as its mean (hue, tone and glow), under pixel noise that cancels within each patch. The
connector outputs the channels' means, each in its own direction, and some of the noise; the block `COPIER` averages them uniformly
over all visible tokens and copies the wired ones into directions of the answer. All other weights are 0. Norms divide by a constant, so
the model is linear from the connector to its logits, and factors that are not wired have a gradient of exactly 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from theodolite.models.construction.build import DecoderSize, build_vlm
from theodolite.models.construction.frontends import PATCH
from theodolite.worlds.factors import Factor, FactorSpace, Scenes
from theodolite.worlds.prior import Prior
from theodolite.worlds.query import Query, open_query
from theodolite.worlds.world import Pairs, World

SPACE = FactorSpace(
    (
        Factor("hue", ("amber", "beige", "coral", "denim")),
        Factor("tone", ("faint", "mild", "strong", "vivid")),
        Factor("glow", ("dim", "even", "bright")),
    )
)
WIDTH, NUM_LAYERS = 48, 4
COPIER = 1  # block, from 0: what it does shows in the output of "layer.2"
NOISE = slice(3, 11)  # directions of the vision tokens' noise
ONE, READ = 14, 16  # the constant of the answer's sign; READ + i holds the copy of factor i
WORDS = slice(24, 48)  # directions of the text
SHARPNESS = 30.0
NOMINAL = 0.8  # the share of vision tokens among what an answer sees is about this
LARGE = 1e16


class Planted(World):
    """Pictures whose channel means are the levels of three factors, with one open question each."""

    name = "planted"
    default_correlation = ("hue", "tone")

    def __init__(self, prior: Prior | None = None) -> None:
        self.prior = prior or Prior(SPACE)

    def correlate(self, cause: str, effect: str, strength: float) -> Planted:
        return Planted(self.prior.correlate(cause, effect, strength))

    def sample(self, num_scenes: int, rng: np.random.Generator) -> Scenes:
        return self.prior.sample(num_scenes, rng)

    def render(self, scenes: Scenes, size: int | None = None) -> UInt8[np.ndarray, "scene size size 3"]:
        """Level plus noise that cancels within each patch, so that a patch's mean is exactly its level."""
        side = size or 64
        means = np.stack([_pixel(scenes.of_factor(factor.name), len(factor.values)) for factor in SPACE.factors], axis=1)
        pictures = np.empty((len(scenes), side, side, 3), dtype=np.uint8)
        for number, nuisance in enumerate(scenes.nuisance):
            draw = np.random.default_rng(int(nuisance)).integers(-20, 21, (side, side // PATCH, PATCH // 2, 3))
            noise = np.concatenate([draw, -draw], axis=2).reshape(side, side, 3)
            pictures[number] = means[number] + noise
        return pictures

    def pairs(self, num_scenes: int, rng: np.random.Generator) -> Pairs:
        base = self.independent.sample(num_scenes, rng)
        variants = [base]
        for factor in SPACE.factors:
            step = rng.integers(1, len(factor.values), size=num_scenes)
            variants.append(base.do(factor.name, (base.of_factor(factor.name) + step) % len(factor.values)))
        variants.append(base.reseed(rng))
        kinds = (*SPACE.names, "")
        scene = np.arange(num_scenes)
        return Pairs(
            kind="exact",
            pool=Scenes.concatenate(variants),
            scene_id=np.tile(scene, len(kinds)),
            factor=tuple(kind for kind in kinds for _ in range(num_scenes)),
            before=np.tile(scene, len(kinds)),
            after=np.arange(num_scenes, num_scenes * (len(kinds) + 1)),
        )

    @property
    def queries(self) -> tuple[Query, ...]:
        return tuple(open_query(SPACE, name, [f"what is its {name}?", f"which {name} does it have?"]) for name in SPACE.names)

    def query(self, name: str) -> Query:
        return next(query for query in self.queries if query.name == name)


def _pixel(level: np.ndarray, number: int) -> np.ndarray:
    """Mean of a channel in 32 to 224, evenly spaced."""
    return 32 + level * (192 // (number - 1))


def planted_vlm(wires: Mapping[str, str] | None = None, kept: tuple[str, ...] = ("hue", "tone"), seed: int = 0) -> tuple[Any, Any, Planted]:
    """Model, processor and world. `wires` maps the factor of a question to the factor that determines its answer.

    By default hue determines the answer about hue, and all other answers are the same for every picture. The answer is the value whose
    index is the level of the wired factor. The connector drops the factors that are not `kept`.
    """
    wires = {"hue": "hue"} if wires is None else wires
    world = Planted()
    model, processor = build_vlm(world.texts, seed, DecoderSize(NUM_LAYERS, WIDTH, 2, 1), "patches")
    generator = torch.Generator().manual_seed(seed)
    for parameter in (*model.model.language_model.parameters(), *model.model.multi_modal_projector.parameters()):
        parameter.data.zero_()
    _plant_connector(model.model.multi_modal_projector, kept, generator)
    _plant_decoder(model, processor.tokenizer, wires, generator)
    return model.eval(), processor, world


def _plant_connector(connector: Any, kept: tuple[str, ...], generator: torch.Generator) -> None:
    """Means of channels and some noise, through the linear range of the activation."""
    area, far = PATCH * PATCH, 12.0
    channels = torch.eye(3).repeat_interleave(area, dim=1) / area
    noise = torch.randn(NOISE.stop - NOISE.start, 3, area, generator=generator) / area**0.5
    noise -= noise.mean(dim=2, keepdim=True)
    inner = torch.cat([channels * torch.tensor([[float(name in kept)] for name in SPACE.names]), noise.flatten(1)])
    connector.linear_1.weight.data[: len(inner)] = inner
    connector.linear_1.bias.data[: len(inner)] = far  # the activation is the identity there, to rounding
    connector.linear_2.weight.data[: len(inner), : len(inner)] = torch.eye(len(inner))
    connector.linear_2.bias.data[: len(inner)] = -far


def _plant_decoder(model: Any, tokenizer: Any, wires: Mapping[str, str], generator: torch.Generator) -> None:
    decoder = model.model.language_model
    for norm in [decoder.norm, *(each for layer in decoder.layers for each in (layer.input_layernorm, layer.post_attention_layernorm))]:
        # x / sqrt(mean x^2 + LARGE^2) * LARGE is x, to the bit and in its gradient.
        norm.weight.data.fill_(LARGE)
        norm.variance_epsilon = LARGE**2
    model.config.text_config.rms_norm_eps = LARGE**2
    words = decoder.embed_tokens.weight.data
    words[:, WORDS] = torch.randn(len(words), WORDS.stop - WORDS.start, generator=generator)
    words[tokenizer.convert_tokens_to_ids("<answer>"), ONE] = 1.0
    attention = decoder.layers[COPIER].self_attn
    head = torch.zeros(len(words), WIDTH)
    for about, source in wires.items():
        place = SPACE.index(source)
        attention.v_proj.weight.data[place, place] = 1.0
        attention.o_proj.weight.data[READ + place, place] = 1.0
        number = len(SPACE[source].values)
        for level, value in enumerate(SPACE[about].values):
            at = float(_pixel(np.array(level), number)) / 127.5 - 1
            word = tokenizer.convert_tokens_to_ids(value)
            head[word, READ + place] = SHARPNESS * at
            head[word, ONE] = -SHARPNESS * NOMINAL * at**2 / 2
    model.lm_head.weight = nn.Parameter(head)
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = False
