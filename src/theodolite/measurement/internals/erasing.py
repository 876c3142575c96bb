"""Linear concept erasure of a factor from all vision tokens at a site (LEACE), with controls."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.asking.answer import Question
from theodolite.asking.local import Edit, LocalAsker
from theodolite.asking.pictures import Pictures
from theodolite.asking.rows import TokenRow

# Smaller correlations are not erased. The library's default 0.01 would leave traces of a factor that few tokens encode.
LEAST_CORRELATION = 1e-3
# Whether the tokens' covariance is shrunk towards a multiple of the identity, as is the library's default. Theorem 4.3's least movement is
# then not exact on the fitted tokens (up to 7 % more), but answers are about other pictures, and those move less: in simulations of 160
# pictures by up to 13 % (1,024 dimensions, 4 tokens a picture), never more. The correlation that is left is the same either way.
SHRINKAGE = True


@dataclass(frozen=True, eq=False)
class Eraser:
    """x - left right (x - mean): x without its linear information on a labelling. Directions are sorted, the best predicted first."""

    left: Float[Tensor, "dim direction"]
    right: Float[Tensor, "direction dim"]
    mean: Float[Tensor, " dim"]

    @property
    def rank(self) -> int:
        """Number of erased directions."""
        return self.left.shape[1]

    def first(self, rank: int) -> Eraser:
        """The eraser of the first `rank` directions alone."""
        return Eraser(self.left[:, :rank], self.right[:rank], self.mean)

    def __call__(self, tokens: Float[Tensor, "row token dim"], numbers: Int[Tensor, " row"]) -> Float[Tensor, "row token dim"]:
        """The edit of vision tokens, the same for every picture."""
        exact = tokens.float()
        return (exact - ((exact - self.mean) @ self.right.T) @ self.left.T).to(tokens)


class ErasureFit:
    """Moments of tokens and of several labellings of their pictures at a site, accumulated over batches in double precision.

    `shrinkage`: see `SHRINKAGE`.
    """

    def __init__(self, labels: Sequence[Float[Tensor, "picture level"]], shrinkage: bool = SHRINKAGE) -> None:
        self.shrinkage = shrinkage
        self.sizes = [label.shape[1] for label in labels]
        self.labels = torch.cat(list(labels), dim=1).double()
        self.fitter: Any = None

    def update(self, tokens: Float[Tensor, "row token dim"], numbers: Int[Tensor, " row"]) -> None:
        """Adds a batch: vision tokens, and the numbers of their pictures as rows of the labels."""
        if self.fitter is None:
            self.fitter = _fitter(tokens.shape[2], self.labels.shape[1], tokens.device, self.shrinkage)
        labels = self.labels[numbers.cpu()].to(tokens.device)
        self.fitter.update(tokens.double().flatten(0, 1), labels.repeat_interleave(tokens.shape[1], dim=0))

    def erasers(self) -> list[Eraser]:
        """One for each labelling (LEACE, arXiv 2306.03819, theorem 4.3)."""
        erasers, start = [], 0
        for size in self.sizes:
            columns = slice(start, start := start + size)
            fitter = _fitter(self.fitter.x_dim, size, self.fitter.mean_x.device, self.shrinkage)
            for name in ("n", "mean_x", "sigma_xx_"):
                setattr(fitter, name, getattr(self.fitter, name))
            fitter.mean_z, fitter.sigma_xz_ = self.fitter.mean_z[columns], self.fitter.sigma_xz_[:, columns]
            eraser = fitter.eraser
            nonzero = eraser.proj_left.norm(dim=0) > 0
            erasers.append(Eraser(eraser.proj_left[:, nonzero].float(), eraser.proj_right[nonzero].float(), fitter.mean_x.float()))
        return erasers


def _fitter(dim: int, num_labels: int, device: torch.device, shrinkage: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.jit, which the package uses at import
        from concept_erasure import LeaceFitter
    # Constraining the trace of the covariance would mix in a projection that leaves traces of the labels.
    options: dict[str, Any] = {"svd_tol": LEAST_CORRELATION, "constrain_cov_trace": False, "shrinkage": shrinkage}
    return LeaceFitter(dim, num_labels, device=device, dtype=torch.float64, **options)


def paired_labels(before: Int[np.ndarray, " pair"], after: Int[np.ndarray, " pair"], num_levels: int) -> Float[Tensor, "picture level"]:
    """One-hot levels of the pictures before, then of those after, minus the mean of each pair.

    Their covariance with tokens is that of token differences with level differences, so what a pair has in common cancels, together
    with its chance correlations: on exact pairs only what the intervention changes is erased.
    """
    one, other = (torch.eye(num_levels)[torch.from_numpy(level)] for level in (before, after))
    return torch.cat([(one - other) / 2, (other - one) / 2])


def random_labels(
    before: Int[np.ndarray, " pair"],
    after: Int[np.ndarray, " pair"],
    scenes: Int[np.ndarray, " pair"],
    num_levels: int,
    rng: np.random.Generator,
) -> Float[Tensor, "picture level"]:
    """One-hot levels of the pictures before, then of those after, shuffled among scenes, so that all their correlations are by chance.

    Not centred by pair: within a pair even a random label correlates only with what the intervention changes.
    """
    levels = np.concatenate(shuffle_levels(before, after, scenes, rng))
    return torch.eye(num_levels)[torch.from_numpy(levels)]


def fit_erasers(
    asker: LocalAsker,
    pictures: Pictures,
    question: Question,
    labels: Sequence[Float[Tensor, "picture level"]],
    sites: Sequence[str],
    shrinkage: bool = SHRINKAGE,
) -> Mapping[str, list[Eraser]]:
    """By site, one eraser for each labelling of the pictures. The question follows every picture; its picture number is not used."""
    fits = {site: ErasureFit(labels, shrinkage) for site in sites}

    def run(rows: Sequence[TokenRow]) -> tuple[Tensor, Mapping[str, list[Tensor]]]:
        """Numbers of the rows' pictures, and the vision tokens by site; added up only after the whole batch has succeeded."""
        tokens: dict[str, list[Tensor]] = {site: [] for site in sites}
        batch = asker.collate(rows, pictures)
        asker.score(batch, asker.encode_batch(batch, pictures), {site: _collecting(into) for site, into in tokens.items()})
        return batch.pictures, tokens

    asks = [Question(number, question.question, question.choices) for number in range(len(pictures))]
    with torch.no_grad():
        for rows in asker.groups(pictures, asks):
            for numbers, by_site in asker.fitting(rows, run):
                for site, fit in fits.items():
                    for tokens in by_site[site]:
                        fit.update(tokens, numbers)
    return {site: fit.erasers() for site, fit in fits.items()}


def _collecting(into: list[Tensor]) -> Edit:
    def collect(tokens: Tensor, numbers: Tensor) -> Tensor:
        into.append(tokens)
        return tokens

    return collect


def shuffle_levels(
    first: Int[np.ndarray, " pair"], second: Int[np.ndarray, " pair"], scenes: Int[np.ndarray, " pair"], rng: np.random.Generator
) -> tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]:
    """Both levels of pairs, shuffled among scenes: pair i gets the two levels of a pair of another scene."""
    unique, member = np.unique(scenes, return_inverse=True)
    start = np.searchsorted(member, np.arange(len(unique)), sorter=(order := np.argsort(member, kind="stable")))
    size = np.bincount(member)
    within = np.empty(len(member), dtype=np.int64)
    within[order] = np.arange(len(member)) - np.repeat(start, size)
    other = rng.permutation(len(unique))[member]
    taken = order[start[other] + within % size[other]]
    return first[taken], second[taken]
