"""What vision tokens say in words, by site: the share of a picture's vision tokens whose words name a factor's value.

Two lenses (`lenses`): the logit lens, and LatentLens (arXiv 2602.00462). What counts as naming: `naming`. The baseline is the share under
the values of other pictures, over all pictures of all other scenes (the mean of all shuffles, not one of them): tokens that say "red" of
every picture name nothing. Words are no effect: patch and erase (`causal`) say whether answers depend on the tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.asking.rows import TokenRow
from theodolite.measurement.internals.context import MeasureContext
from theodolite.measurement.internals.lenses import TextBank, logit_top, paper_layers, read_bank
from theodolite.measurement.internals.naming import Naming, shown_token, text_naming, vocabulary_naming
from theodolite.measurement.internals.reask import inner_layers
from theodolite.measurement.internals.sentences import read_sentences
from theodolite.measurement.pairs.interventions import Interventions, known_levels
from theodolite.models.taps import layer_sites, touching
from theodolite.records.words import FactorWords, Lens, ShownLens, ShownPicture, SiteWords, TextStates, Words
from theodolite.stats.jackknife import DIGITS, rounded
from theodolite.stats.rates import clustered_mean, paired_difference

NUM_SCENES = 100
TOP_K = 5
NUM_SHOWN = 2
CONNECTOR = "connector"
# Numbers of a token's top entries and the strength of the first, from hidden states and k.
Top = Callable[[Tensor, int], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class WordLens:
    """A lens on one model: what its entries say and are shown as, and the text layer of each entry where it has one."""

    name: str
    naming: Naming
    top: Top
    shown: Sequence[str]
    layers: tuple[str, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, eq=False)
class Read:
    """The words of a batch's pictures under one lens at one site."""

    lens: str
    site: str
    picture: Int[np.ndarray, " row"]
    entries: Int[np.ndarray, "row token k"]
    strength: Float[np.ndarray, "row token"]


@dataclass(eq=False)
class Tally:
    """What is kept of all pictures under one lens at one site; rows are in the order of the pictures that are read."""

    strength: Float[np.ndarray, " picture"]
    shares: dict[str, Float[np.ndarray, "picture value"]]
    nearest: Int[np.ndarray, " layer"]
    shown: dict[int, Read] = field(default_factory=dict)


def measure_words(context: MeasureContext) -> Words | None:
    """The words of the vision tokens of the first pictures of the first 100 scenes, by site; None where there are no interventions.

    Where vision tokens attend to the question (PaliGemma), they are those under the picture's first question; a notice states that.
    Raises `BadInput` for a text file that cannot be used, and for a language model without the family's final norm.
    """
    pictures, scenes = word_pictures(context.interventions)
    if not len(pictures):
        return None
    asker, sites = context.asker, (CONNECTOR, *layer_sites(context.model))
    sentences = read_sentences(context.sentences)
    bank = read_bank(asker, sentences, [f"layer.{number}" for number in paper_layers(len(sites) - 1)])
    values = {factor: each.values for factor, each in context.interventions.items()}
    lenses = [logit_lens(asker, values), *([] if bank is None else [latent_lens(bank, values)])]
    shown_sites = tuple(dict.fromkeys((CONNECTOR, *inner_layers(sites[1:]), sites[-1])))
    tallies = _read(context, lenses, pictures, sites, shown_sites)
    levels = known_levels(context.interventions, exact=context.plan.pair_kind == "exact")
    known = {factor: own[pictures] for factor, own in levels.items()}
    measured = {lens.name: _lens(lens, tallies[lens.name], known, scenes, context.confidence) for lens in lenses}
    first = range(min(NUM_SHOWN, len(pictures)))
    states = None
    if bank is not None:
        states = TextStates(
            text=sentences.source,
            text_sha256=sentences.sha256,
            num_sentences=len(sentences.lines),
            num_states=len(bank.words),
            num_words=len(set(bank.words)),
            layers=bank.layers,
        )
    return Words(
        top_k=TOP_K,
        num_scenes=len(np.unique(scenes)),
        num_pictures=len(pictures),
        num_tokens=asker.model_inputs(context.plan.pictures).num_tokens,
        logit=measured["logit"],
        latent=measured.get("latent"),
        states=states,
        shown=tuple(
            _shown_picture(
                context, lenses, tallies, int(pictures[row]), int(scenes[row]), {name: int(own[row]) for name, own in known.items()}
            )
            for row in first
        ),
    )


def word_pictures(interventions: Mapping[str, Interventions]) -> tuple[Int[np.ndarray, " picture"], Int[np.ndarray, " picture"]]:
    """The pictures to read and their scenes, by scene: of each factor the first picture of each of its first scenes, each picture once."""
    scene_of: dict[int, int] = {}
    for each in interventions.values():
        scenes, first = np.unique(each.scene, return_index=True)
        for scene, place in zip(scenes[:NUM_SCENES].tolist(), first[:NUM_SCENES].tolist(), strict=True):
            scene_of.setdefault(int(each.before[place]), scene)
    pictures = sorted(scene_of, key=lambda picture: (scene_of[picture], picture))
    return np.array(pictures, dtype=np.int64), np.array([scene_of[picture] for picture in pictures], dtype=np.int64)


def logit_lens(asker: LocalAsker, values: Mapping[str, tuple[str, ...]]) -> WordLens:
    """The model's own head over its whole vocabulary; rows of the head beyond the tokenizer's vocabulary say nothing."""
    tokenizer = asker.processor.tokenizer
    rows = int(asker.base.get_output_embeddings().weight.shape[0])
    texts = [tokenizer.decode([token]) for token in range(min(rows, len(tokenizer)))] + [""] * max(rows - len(tokenizer), 0)

    def pieces_of(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    def top(hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        return logit_top(asker.base, hidden, k)

    return WordLens("logit", vocabulary_naming(values, texts, pieces_of), top, texts)


def latent_lens(bank: TextBank, values: Mapping[str, tuple[str, ...]]) -> WordLens:
    """The nearest text states of a bank."""
    return WordLens("latent", text_naming(values, bank.entries), bank.top, bank.entries, bank.layers, (-1.0, 1.0))


def _read(
    context: MeasureContext,
    lenses: Sequence[WordLens],
    pictures: Int[np.ndarray, " picture"],
    sites: Sequence[str],
    shown_sites: Sequence[str],
) -> dict[str, dict[str, Tally]]:
    """Tallies by lens and site, from one pass over the pictures, each under its first question."""
    asker, pool = context.asker, context.plan.pictures
    first = [context.questions[int(picture)][0] for picture in pictures]
    # One choice is enough: vision tokens do not see it.
    asks = [Question(int(picture), each.text, each.choices[:1]) for picture, each in zip(pictures, first, strict=True)]
    if asker.sharing == "nothing":
        asker.notices.append("words of vision tokens are read under each picture's first question")
    place = {int(picture): row for row, picture in enumerate(pictures)}
    tallies = {lens.name: {site: _empty(lens, len(pictures)) for site in sites} for lens in lenses}
    shown, done = set(pictures[:NUM_SHOWN].tolist()), 0

    def run(rows: Sequence[TokenRow]) -> list[Read]:
        batch, reads = asker.collate(rows, pool), list[Read]()
        numbers = batch.pictures.cpu().numpy()

        def read(site: str, tokens: Float[Tensor, "row token dim"]) -> None:
            reads.extend(_words_at(lens, site, numbers, tokens) for lens in lenses)

        def tap(site: str) -> Callable[[Tensor], None]:
            return lambda hidden: read(site, hidden[batch.vision].reshape(len(hidden), -1, hidden.shape[2]))

        features = asker.encode_batch(batch, pool)
        read(CONNECTOR, features.tokens)
        with touching(asker.base, {site: tap(site) for site in sites[1:]}):
            asker.score(batch, features)
        return reads

    with torch.no_grad():
        for rows in asker.groups(pool, asks):
            for reads in asker.fitting(rows, run):
                for each in reads:
                    lens = next(lens for lens in lenses if lens.name == each.lens)
                    _add(tallies[each.lens][each.site], lens, each, place, shown if each.site in shown_sites else set())
                done += len(reads[0].picture)
                context.progress(done, len(asks))
    return tallies


def _words_at(lens: WordLens, site: str, numbers: Int[np.ndarray, " row"], tokens: Float[Tensor, "row token dim"]) -> Read:
    entries, strength = lens.top(tokens.flatten(0, 1), TOP_K)
    shape = tokens.shape[:2]
    return Read(lens.name, site, numbers, entries.view(*shape, -1).cpu().numpy(), strength.view(shape).double().cpu().numpy())


def _empty(lens: WordLens, num_pictures: int) -> Tally:
    shares = {factor: np.full((num_pictures, len(own)), np.nan) for factor, own in lens.naming.values.items()}
    return Tally(np.full(num_pictures, np.nan), shares, np.zeros(len(lens.layers), dtype=np.int64))


def _add(tally: Tally, lens: WordLens, read: Read, place: Mapping[int, int], shown: set[int]) -> None:
    """Adds a batch's words; those of single tokens are kept of the shown pictures alone."""
    rows = np.array([place[int(picture)] for picture in read.picture], dtype=np.int64)
    tally.strength[rows] = read.strength.mean(axis=1)
    for factor, share in lens.naming.shares(read.entries).items():
        tally.shares[factor][rows] = share
    if lens.layers:
        layer = read.entries[..., 0].ravel() // (len(lens.shown) // len(lens.layers))
        tally.nearest += np.bincount(layer, minlength=len(lens.layers))
    for row, picture in enumerate(read.picture.tolist()):
        if picture in shown:
            keep = slice(row, row + 1)
            tally.shown[picture] = replace(
                read, picture=read.picture[keep], entries=read.entries[keep].copy(), strength=read.strength[keep].copy()
            )


def _lens(
    lens: WordLens, tallies: Mapping[str, Tally], known: Mapping[str, Int[np.ndarray, " picture"]], scenes: np.ndarray, confidence: float
) -> Lens:
    """The record of a lens over all sites."""
    naming = lens.naming
    unnamed = {factor: tuple(value for value in own if not naming.can_name(value)) for factor, own in naming.values.items()}
    usable, left_out = dict[str, np.ndarray](), dict[str, str]()
    for factor, own in naming.values.items():
        can = np.array([naming.can_name(value) for value in own])
        keep = (known[factor] >= 0) & can[known[factor]]
        if can.sum() < 2:
            left_out[factor] = "fewer than two of its values can be named"
        elif len(np.unique(scenes[keep])) < 2:
            left_out[factor] = "fewer than two scenes have a value that is known and can be named"
        else:
            usable[factor] = np.flatnonzero(keep)
    sites = {}
    for site, tally in tallies.items():
        strength = clustered_mean(tally.strength.round(DIGITS).clip(*lens.bounds), scenes, confidence, lens.bounds)
        factors = {
            factor: factor_words(tally.shares[factor][rows], known[factor][rows], scenes[rows], confidence)
            for factor, rows in usable.items()
        }
        layers = {
            layer: round(float(share), DIGITS)
            for layer, share in zip(lens.layers, tally.nearest / max(tally.nearest.sum(), 1), strict=True)
        }
        sites[site] = SiteWords(strength=rounded(strength), text_layers=layers, factors=factors)
    spellings = {
        word: tuple(dict.fromkeys(spelled(lens.shown[int(entry)]) for entry in np.flatnonzero(naming.says[:, place])))
        for place, word in enumerate(naming.words)
    }
    return Lens(sites=sites, spellings=spellings, unnamed={factor: own for factor, own in unnamed.items() if own}, left_out=left_out)


def spelled(text: str) -> str:
    """A token's text with a sign for a space before it."""
    return ("␣" if text[:1].isspace() else "") + shown_token(text)


def factor_words(
    shares: Float[np.ndarray, "picture value"], levels: Int[np.ndarray, " picture"], scenes: Int[np.ndarray, " picture"], confidence: float
) -> FactorWords:
    """Share of tokens that name the picture's own value, and the mean share under the values of the pictures of all other scenes.

    Of two scenes or more; intervals are clustered by scene.
    """
    own = shares[np.arange(len(levels)), levels].round(DIGITS)
    drawn = np.zeros_like(shares)
    drawn[np.arange(len(levels)), levels] = 1
    _, member = np.unique(scenes, return_inverse=True)
    of_scene = np.zeros((member.max() + 1, shares.shape[1]))
    np.add.at(of_scene, member, drawn)
    others = drawn.sum(axis=0) - of_scene[member]
    baseline = ((others * shares).sum(axis=1) / others.sum(axis=1)).round(DIGITS)
    bounds = (0.0, 1.0)
    return FactorWords(
        share=rounded(clustered_mean(own, scenes, confidence, bounds)),
        baseline=rounded(clustered_mean(baseline, scenes, confidence, bounds)),
        excess=rounded(paired_difference(baseline, own, scenes, confidence, (-1.0, 1.0))),
        num_pictures=len(levels),
    )


def _shown_picture(
    context: MeasureContext,
    lenses: Sequence[WordLens],
    tallies: Mapping[str, Mapping[str, Tally]],
    picture: int,
    scene: int,
    levels: Mapping[str, int],
) -> ShownPicture:
    """A picture with the words of its tokens; its pixels are added to what the survey saves."""
    name = f"pictures/words-{picture:06d}.png"
    context.shown_pictures[name] = context.plan.pictures[picture]
    known = {factor: level for factor, level in levels.items() if level >= 0}
    values = {factor: context.interventions[factor].values[level] for factor, level in known.items()}
    shown = [
        _shown_lens(lens, tally.shown[picture], known) for lens in lenses for tally in tallies[lens.name].values() if picture in tally.shown
    ]
    grids = context.asker.model_inputs(context.plan.pictures).grids
    return ShownPicture(scene_id=scene, picture=name, values=values, cells=numbered_cells(grids), lenses=tuple(shown))


def _shown_lens(lens: WordLens, read: Read, levels: Mapping[str, int]) -> ShownLens:
    entries = read.entries[0]
    said = lens.naming.said(entries)
    named = {
        factor: tuple(np.flatnonzero(lens.naming.named(said, factor)[:, level]).tolist())
        for factor, level in levels.items()
        if lens.naming.can_name(lens.naming.values[factor][level])
    }
    words = tuple(" ".join(shown_token(lens.shown[entry]) for entry in own) for own in entries.tolist())
    return ShownLens(lens=lens.name, site=read.site, words=words, strength=tuple(read.strength[0].round(3).tolist()), named=named)


def numbered_cells(grids: Sequence[Any]) -> tuple[tuple[int, int, int], ...]:
    """(grid, row, column) of each token. A tile begins a grid, and so does a place before the last one: a view behind another."""
    cells: list[tuple[int, int, int]] = []
    number = -1
    for grid in grids:
        last = (-1, -1)
        number += 1
        for row, column in grid.tolist():
            if (row, column) <= last:
                number += 1
            cells.append((number, row, column))
            last = (row, column)
    return tuple(cells)
