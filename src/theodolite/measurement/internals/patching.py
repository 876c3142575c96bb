"""Patching: a factor's part of the difference between two pictures is put into the first; do the answers follow?"""

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

MOST_BYTES = 2**28  # of the states of pictures after that are held at once
Basis = Float[np.ndarray, "dim direction"]


def random_basis(dim: int, rank: int, rng: np.random.Generator) -> Basis:
    """Orthonormal columns that span a random subspace, uniform among those of the rank."""
    return np.asarray(np.linalg.qr(rng.standard_normal((dim, rank)))[0])


def patched(
    tokens: Float[Tensor, "row token dim"], after: Float[Tensor, "row token dim"], basis: Float[Tensor, "dim direction"] | None
) -> Float[Tensor, "row token dim"]:
    """h + P (h_after - h), P the projection on the span of the orthonormal columns; without a basis all of h_after."""
    if basis is None:
        return after.to(tokens)
    difference = (after - tokens.float()) @ basis
    return (tokens.float() + difference @ basis.T).to(tokens)


@dataclass(frozen=True, eq=False)
class Patcher:
    """Asks cases with a subspace of the difference put in at a site."""

    asker: LocalAsker
    pictures: UInt8[np.ndarray, "picture height width 3"]

    def answers(self, cases: ReaskedCases, bases: Mapping[str, Mapping[str, Basis | None]]) -> dict[tuple[str, str], ModelAnswers]:
        """Answers by (site, name of the basis), in the order of the asks; `bases` are by site and name."""
        found: dict[tuple[str, str], list[tuple[Int[np.ndarray, " ask"], ModelAnswers]]] = {}
        sites = tuple(bases)
        size = self._cases_at_once(cases, len(sites))
        for start in range(0, len(cases.before), size):
            part, kept = cases.part(start, start + size)
            after = self._states(part, sites)
            for site, named in bases.items():
                for name, basis in named.items():
                    said = ask_edited(self.asker, self.pictures[part.before], part.asks, {site: _putting(after[site], basis)})
                    found.setdefault((site, name), []).append((kept, said))
        return {key: _joined(parts, len(cases.asks)) for key, parts in found.items()}

    def _cases_at_once(self, cases: ReaskedCases, num_sites: int) -> int:
        tokens = self.asker.model_inputs(self.pictures[:1]).num_tokens
        dim = int(self.asker.base.config.get_text_config().hidden_size)
        return max(1, min(len(cases.before), MOST_BYTES // (4 * tokens * dim * num_sites)))

    def _states(self, cases: ReaskedCases, sites: Sequence[str]) -> dict[str, Float[Tensor, "case token dim"]]:
        """The vision tokens of the pictures after, by site, float32."""
        held: dict[str, Tensor] = {}

        def keeping(site: str) -> Edit:
            def keep(tokens: Tensor, numbers: Tensor) -> Tensor:
                if site not in held:
                    held[site] = torch.zeros(len(cases.after), *tokens.shape[1:], device=tokens.device)
                held[site][numbers.to(tokens.device)] = tokens.float()
                return tokens

            return keep

        self.asker.ask(self.pictures[cases.after], cases.first_asks(), edits={site: keeping(site) for site in sites})
        return held


def _putting(after: Float[Tensor, "case token dim"], basis: Basis | None) -> Edit:
    columns = None if basis is None else torch.from_numpy(np.ascontiguousarray(basis)).float().to(after.device)

    def put(tokens: Tensor, numbers: Tensor) -> Tensor:
        return patched(tokens, after[numbers.to(after.device)], columns)

    return put


def _joined(parts: Sequence[tuple[np.ndarray, ModelAnswers]], num_asks: int) -> ModelAnswers:
    """Answers to parts of the asks as answers to all."""
    width = max(said.probabilities.shape[1] for _, said in parts)
    chosen, probabilities = np.zeros(num_asks, dtype=np.int64), np.zeros((num_asks, width))
    for kept, said in parts:
        chosen[kept] = said.chosen
        probabilities[kept, : said.probabilities.shape[1]] = said.probabilities
    return ModelAnswers(chosen, probabilities)


def response(said: ModelAnswers, before: ModelAnswers, after: ModelAnswers, scenes: Int[np.ndarray, " ask"], confidence: float) -> Response:
    """How answers under a change differ from those before it and agree with those of the pictures after."""
    apart = before.chosen != after.chosen
    becomes = (said.chosen == after.chosen)[apart].astype(np.float64)
    return Response(
        moved=clustered_rate((said.chosen != before.chosen).astype(np.float64), scenes, confidence),
        becomes=clustered_rate(becomes, scenes[apart], confidence) if apart.any() else None,
        variation=rounded(clustered_mean(said.variation(before), scenes, confidence, (0.0, 1.0))),
    )


def responses(
    said: ModelAnswers,
    before: ModelAnswers,
    after: ModelAnswers,
    own: Bool[np.ndarray, " ask"],
    scenes: Int[np.ndarray, " ask"],
    confidence: float,
) -> Responses:
    """The question about the factor (`own`) and all others; null where there are none."""

    def over(keep: Bool[np.ndarray, " ask"]) -> Response | None:
        return response(said.take(keep), before.take(keep), after.take(keep), scenes[keep], confidence) if keep.any() else None

    return Responses(own=over(own), others=over(~own))
