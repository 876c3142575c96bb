"""Activation patching in a factor's subspace: its part of the difference between two pictures is added to the tokens of the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from theodolite.asking.local import Edit, LocalAsker
from theodolite.measurement.internals.reask import ModelAnswers, ReaskedCases, ask_edited
from theodolite.records.causal import Response, Responses
from theodolite.stats.jackknife import rounded
from theodolite.stats.rates import clustered_mean, clustered_rate

MOST_BYTES = 2**28  # of hidden states of pictures after that are in memory at once
Basis = Float[np.ndarray, "dim direction"]


def random_basis(dim: int, rank: int, rng: np.random.Generator) -> Basis:
    """Orthonormal basis (columns) of a uniformly random subspace of the given rank."""
    return np.asarray(np.linalg.qr(rng.standard_normal((dim, rank)))[0])


def patched(
    tokens: Float[Tensor, "row token dim"], after: Float[Tensor, "row token dim"], basis: Float[Tensor, "dim direction"] | None
) -> Float[Tensor, "row token dim"]:
    """h + P (h_after - h), with P the projection on the span of the orthonormal columns; h_after without a basis."""
    if basis is None:
        return after.to(tokens)
    difference = (after - tokens.float()) @ basis
    return (tokens.float() + difference @ basis.T).to(tokens)


@dataclass(frozen=True, eq=False)
class Patcher:
    """Asks the questions of cases with a subspace of the difference patched in at a site."""

    asker: LocalAsker
    pictures: UInt8[np.ndarray, "picture height width 3"]

    def answers(self, cases: ReaskedCases, bases: Mapping[str, Mapping[str, Basis | None]]) -> dict[tuple[str, str], ModelAnswers]:
        """Answers by (site, name of the basis), in the order of the asks; `bases` are by site and name."""
        chunks: dict[tuple[str, str], list[tuple[Int[np.ndarray, " ask"], ModelAnswers]]] = {}
        sites = tuple(bases)
        size = self._cases_at_once(cases, len(sites))
        for start in range(0, len(cases.before), size):
            chunk, asks = cases.part(start, start + size)
            after = self._states(chunk, sites)
            for site, named in bases.items():
                for name, basis in named.items():
                    answers = ask_edited(self.asker, self.pictures[chunk.before], chunk.questions, {site: _patching(after[site], basis)})
                    chunks.setdefault((site, name), []).append((asks, answers))
        return {key: _joined(parts, len(cases.questions)) for key, parts in chunks.items()}

    def _cases_at_once(self, cases: ReaskedCases, num_sites: int) -> int:
        tokens = self.asker.model_inputs(self.pictures[:1]).num_tokens
        dim = int(self.asker.base.config.get_text_config().hidden_size)
        return max(1, min(len(cases.before), MOST_BYTES // (4 * tokens * dim * num_sites)))

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


def _patching(after: Float[Tensor, "case token dim"], basis: Basis | None) -> Edit:
    columns = None if basis is None else torch.from_numpy(np.ascontiguousarray(basis)).float().to(after.device)

    def patch(tokens: Tensor, numbers: Tensor) -> Tensor:
        return patched(tokens, after[numbers.to(after.device)], columns)

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
