"""Activation patching in a factor's subspace: its part of the difference between two pictures is added to the tokens of the first.

Controls add as much along other directions: each token's part has the same norm, so that only the direction differs. A difference
projected on a random subspace would keep a share of about rank / dim of its squared norm, and no model would answer to so little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from theodolite.asking.batch_size import FREE_FRAC, free_bytes
from theodolite.asking.local import Edit, LocalAsker
from theodolite.asking.pictures import Pictures
from theodolite.measurement.internals.directions import span
from theodolite.measurement.internals.erasing import shuffle_levels
from theodolite.measurement.internals.reask import ModelAnswers, ReaskedCases, ask_under_edits
from theodolite.measurement.pairs.interventions import Interventions
from theodolite.records.causal import Response, Responses
from theodolite.stats.jackknife import rounded
from theodolite.stats.rates import clustered_mean, clustered_rate

MOST_BYTES = 2**36  # of hidden states of pictures after that are in memory at once, of a share of what is free
Basis = Float[np.ndarray, "dim direction"]


Directions = Float[np.ndarray, "case along dim"]


def shuffled_basis(
    interventions: Interventions, vectors: Float[np.ndarray, "picture dim"], own: Basis, rng: np.random.Generator
) -> Float[np.ndarray, "dim rank"]:
    """Orthonormal basis of the principal directions between the means of pictures by shuffled level (whole scenes exchanged).

    Means of pictures, not of differences: all differences of one factor lie in its own subspace, whatever their labels. That subspace
    (`own`) is projected out, since pictures differ along it too; as many directions as it has, at least one.
    """
    levels = shuffle_levels(interventions.level_before, interventions.level_after, interventions.scene, rng)
    level, rows = np.concatenate(levels), vectors[np.concatenate([interventions.before, interventions.after])].astype(np.float64)
    rows = rows - (rows @ own) @ own.T
    means = np.stack([rows[level == each].mean(axis=0) for each in np.unique(level)])
    spanned = span((means - means.mean(axis=0))[None], max(own.shape[1], 1))[0]
    return np.ascontiguousarray(spanned[np.any(spanned != 0, axis=1)].T)


def random_directions(num_cases: int, rank: int, within: int | Basis, rng: np.random.Generator) -> Directions:
    """For each case `rank` random directions of unit length, in a space of so many dimensions or in the span of orthonormal columns.

    Orthogonal to each other where the space has room for so many.
    """
    size = within if isinstance(within, int) else within.shape[1]
    draws = rng.standard_normal((num_cases, size, rank))
    draws = np.linalg.qr(draws)[0] if rank <= size else draws / np.linalg.norm(draws, axis=1, keepdims=True)
    inside = draws if isinstance(within, int) else within @ draws
    return np.ascontiguousarray(inside.transpose(0, 2, 1))


@dataclass(frozen=True, eq=False)
class Change:
    """What is added to the tokens of the picture before: the difference within a basis (without one, the whole difference).

    With `directions`, one set for each case, the same coefficients along these instead, scaled to the same norm for each token.
    """

    basis: Basis | None
    directions: Directions | None = None


def patched(
    tokens: Float[Tensor, "row token dim"],
    after: Float[Tensor, "row token dim"],
    basis: Float[Tensor, "dim direction"] | None,
    directions: Float[Tensor, "row direction dim"] | None = None,
) -> Float[Tensor, "row token dim"]:
    """h + P (h_after - h), with P the projection on the span of the orthonormal columns; h_after without a basis.

    With directions: h + the coefficients of P (h_after - h) along these, with the norm of P (h_after - h) at each token.
    """
    if basis is None:
        return after.to(tokens)
    along = (after - tokens.float()) @ basis
    if directions is None:
        return (tokens.float() + along @ basis.T).to(tokens)
    turned = along @ directions
    norm = turned.norm(dim=-1, keepdim=True)
    scale = torch.where(norm > 0, along.norm(dim=-1, keepdim=True) / norm, 0)
    return (tokens.float() + turned * scale).to(tokens)


@dataclass(frozen=True, eq=False)
class Patcher:
    """Asks the questions of cases with a part of the difference, or as much along other directions, patched in at a site."""

    asker: LocalAsker
    pictures: Pictures

    def answers(self, cases: ReaskedCases, changes: Mapping[str, Mapping[str, Change]]) -> dict[tuple[str, str], ModelAnswers]:
        """Answers by (site, name of the change), in the order of the asks; `changes` are by site and name."""
        chunks: dict[tuple[str, str], list[tuple[Int[np.ndarray, " ask"], ModelAnswers]]] = {}
        sites = tuple(changes)
        size = self._cases_at_once(cases, len(sites))
        for start in range(0, len(cases.before), size):
            chunk, asks = cases.part(start, start + size)
            after = self._states(chunk, sites)
            edits = {
                (site, name): (site, _patching(after[site], change, start))
                for site, named in changes.items()
                for name, change in named.items()
            }
            for key, answers in ask_under_edits(self.asker, self.pictures[chunk.before], chunk.questions, edits).items():
                chunks.setdefault(key, []).append((asks, answers))
        return {key: _joined(parts, len(cases.questions)) for key, parts in chunks.items()}

    def _cases_at_once(self, cases: ReaskedCases, num_sites: int) -> int:
        tokens = self.asker.model_inputs(self.pictures[:1]).num_tokens
        dim = int(self.asker.base.config.get_text_config().hidden_size)
        room = min(MOST_BYTES, int(FREE_FRAC * free_bytes(self.asker.base.device)))
        return max(1, min(len(cases.before), room // (4 * tokens * dim * num_sites)))

    def _states(self, cases: ReaskedCases, sites: Sequence[str]) -> dict[str, Float[Tensor, "case token dim"]]:
        """The vision tokens of the pictures after, by site, float32."""
        states: dict[str, Tensor] = {}

        def storing(site: str) -> Edit:
            def store(tokens: Tensor, numbers: Tensor) -> Tensor:
                if site not in states:
                    states[site] = torch.zeros(len(cases.after), *tokens.shape[1:], device=tokens.device)
                states[site][numbers.to(tokens.device)] = tokens.float()
                return tokens

            return store

        self.asker.ask(self.pictures[cases.after], cases.first_asks(), edits={site: storing(site) for site in sites})
        return states


def _patching(after: Float[Tensor, "case token dim"], change: Change, start: int) -> Edit:
    """The edit of the cases from `start` on, whose states after are given."""

    def moved(array: np.ndarray | None) -> Tensor | None:
        return None if array is None else torch.from_numpy(np.ascontiguousarray(array)).float().to(after.device)

    basis = moved(change.basis)
    directions = moved(None if change.directions is None else change.directions[start : start + len(after)])

    def patch(tokens: Tensor, numbers: Tensor) -> Tensor:
        cases = numbers.to(after.device)
        return patched(tokens, after[cases], basis, None if directions is None else directions[cases])

    return patch


def _joined(parts: Sequence[tuple[np.ndarray, ModelAnswers]], num_asks: int) -> ModelAnswers:
    """Answers to all asks from (numbers of asks, their answers)."""
    width = max(answers.probabilities.shape[1] for _, answers in parts)
    chosen, probabilities = np.zeros(num_asks, dtype=np.int64), np.zeros((num_asks, width))
    for asks, answers in parts:
        chosen[asks] = answers.chosen
        probabilities[asks, : answers.probabilities.shape[1]] = answers.probabilities
    return ModelAnswers(chosen, probabilities)


def response(
    answers: ModelAnswers, before: ModelAnswers, after: ModelAnswers, scenes: Int[np.ndarray, " ask"], confidence: float
) -> Response:
    """Rates of answers under a patch that differ from those before it, and that equal those about the picture after."""
    moves = before.chosen != after.chosen
    becomes = (answers.chosen == after.chosen)[moves].astype(np.float64)
    return Response(
        moved=clustered_rate((answers.chosen != before.chosen).astype(np.float64), scenes, confidence),
        becomes=clustered_rate(becomes, scenes[moves], confidence) if moves.any() else None,
        variation=rounded(clustered_mean(answers.variation(before), scenes, confidence, (0.0, 1.0))),
    )


def responses(
    answers: ModelAnswers,
    before: ModelAnswers,
    after: ModelAnswers,
    own: Bool[np.ndarray, " ask"],
    scenes: Int[np.ndarray, " ask"],
    confidence: float,
) -> Responses:
    """Responses of the questions about the factor (`own`) and of all others; None where there are none."""

    def over(keep: Bool[np.ndarray, " ask"]) -> Response | None:
        return response(answers.take(keep), before.take(keep), after.take(keep), scenes[keep], confidence) if keep.any() else None

    return Responses(own=over(own), others=over(~own))
