"""Effects on answers of changing vision tokens inside a model: patch, erase, shuffle, mean. Counterparts of similarity numbers."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from theodolite.records.part import Estimate, Part, Rate

# By measure, the fields of `Causal` that are the counterparts of its numbers.
PARTNERS: Mapping[str, tuple[str, ...]] = {
    "likeness": ("mean", "shuffle"),
    "geometry": ("patch", "erase"),
    "allocation": ("shuffle", "mean"),
    "gap": ("mean",),
    "ladder": ("erase",),
    "fisher": ("patch",),
    "words": ("patch", "erase"),
}


class Response(Part):
    """Effect on answers of a change of vision tokens in the picture before, over pairs."""

    moved: Rate = Field(description="how often the answer differs from the one without the change, 0 to 1")
    becomes: Rate | None = Field(
        description="of the pairs whose two pictures are answered differently: how often the answer becomes that of the picture after; "
        "null where there are none"
    )
    variation: Estimate = Field(description="mean total variation from the answer without the change, 0 to 1")


class Responses(Part):
    """Responses of the open question about the factor, and of all other open questions together."""

    own: Response | None = Field(description="of the open question about the factor; null where none is asked")
    others: Response | None = Field(description="of all other open questions together; null where none is asked")


class Patch(Part):
    """Effect of a factor's part of the difference between two pictures, added to the first at one site."""

    site: str = Field(description="where the vision tokens were changed")
    factor: str = Field(description="the factor in which the two pictures differ")
    rank: int = Field(description="dimension of the factor's subspace, fitted on other scenes; 0: there is no difference")
    subspace: Responses = Field(description="the difference within the factor's subspace is added")
    whole: Responses = Field(description="ceiling: the whole difference of all vision tokens")
    random_direction: Responses | None = Field(
        default=None,
        description="control: as much as in `subspace`, with the same norm at each token, along random directions, drawn for each pair; "
        "null in older surveys",
    )
    shuffled_direction: Responses | None = Field(
        default=None,
        description="control: the same along directions between the means of pictures whose levels are shuffled by scene, orthogonal to "
        "the factor's subspace",
    )
    other_direction: Responses | None = Field(
        default=None, description="control: the same along random directions of the subspace of `other_factor`; null where there is none"
    )
    other_factor: str | None = Field(default=None, description="the factor of `other_direction`: one that a question is about, if any")
    other_moved: Rate | None = Field(
        default=None, description="how often the answer to the question about `other_factor` moves under `other_direction`"
    )
    random: Responses | None = Field(
        default=None,
        description="in older surveys alone: the difference within a random subspace of the same rank, which keeps little of its norm",
    )
    by_query: dict[str, Rate] = Field(description="how often the answer to each open question moves under `subspace`")


class Erased(Part):
    """Answers under one state of the vision tokens, over pictures before and after a change of the factor."""

    accuracy: Rate | None = Field(
        description="how often the open question about the factor is answered right, 0 to 1; null where none is asked"
    )
    read: Rate | None = Field(
        description="how often its answers to the two pictures differ, where the true ones do, 0 to 1; null where they never do"
    )
    others: Rate | None = Field(description="how often all other open questions are answered right, 0 to 1; null where none is asked")


class ErasedProbe(Part):
    """Accuracy of probes for an erased factor, from mean vision tokens at the site, on all held-out scenes: what the erasure has left."""

    before: Rate = Field(description="of a linear probe without any change, 0 to 1")
    after: Rate = Field(description="of a fresh linear probe, trained on erased tokens; above chance: information is left, 0 to 1")
    nonlinear: Rate = Field(description="of a fresh probe with Gaussian kernels, trained on erased tokens, 0 to 1")
    chance_frac: float = Field(description="share of the commonest value among held-out pictures, 0 to 1")
    num_training_scenes: int = Field(description="scenes that the probes were trained on; the eraser was fitted on some of them")


class Erasure(Part):
    """A factor's linear traces removed from all vision tokens at one site (LEACE, arXiv 2306.03819), fitted on other scenes."""

    site: str = Field(description="where the vision tokens were changed")
    factor: str = Field(description="the factor that was erased")
    rank: int = Field(description="number of directions that were removed")
    before: Erased = Field(description="without any change")
    after: Erased = Field(description="with the factor erased")
    control: Erased = Field(description="with as many directions of a random labelling erased: the factor's levels shuffled by scene")
    probe: ErasedProbe | None = Field(
        default=None, description="what probes decode after the erasure; null where scenes are too few to be probed, and in older surveys"
    )
    lost: Estimate | None = Field(
        description="accuracy about the factor, before minus after, paired by pair, -1 to 1; null where none is asked about it"
    )
    others_lost: dict[str, Estimate] = Field(description="the same of every other open question, by the factor that it is about")
    moved: dict[str, Rate] = Field(
        description="how often the answer to each open question differs from the one without the change, 0 to 1: a factor that no question "
        "is about and whose erasure moves an answer was read as a shadow"
    )


class Disturbance(Part):
    """Effect on answers of shuffling vision tokens, or replacing them by their mean, at one site."""

    moved: Rate = Field(description="how often the answer moves, 0 to 1")
    variation: Estimate = Field(description="mean total variation from the answer without the change, 0 to 1")
    accuracy_before: Rate = Field(description="how often the answer is right without the change, 0 to 1")
    accuracy_after: Rate = Field(description="how often it is right with it, 0 to 1")


class SiteDisturbance(Part):
    """A disturbance at one site, over all open questions and by question."""

    site: str = Field(description="where the vision tokens were changed")
    overall: Disturbance = Field(description="over all open questions")
    by_query: dict[str, Disturbance] = Field(description="by the factor that the question is about")


class Causal(Part):
    """Effects of changing vision tokens on answers. Scenes are taken in order up to a limit, never selected by their answers.

    Questions without an answer in the survey (several choices are equally the most probable) are left out. An answer that comes to tie
    under a change has moved, and is right no more.
    """

    sites: tuple[str, ...] = Field(description="sites for shuffle and mean: connector, and first, middle and last but one layer")
    subspace_sites: tuple[str, ...] = Field(
        description="sites for patch and erase: the same, without the connector where features bypass it into later layers"
    )
    num_patch_scenes: int = Field(description="held-out scenes at most whose pairs were patched, for each factor")
    num_erase_scenes: int = Field(description="held-out scenes at most whose pairs were erased, for each factor")
    num_fit_scenes: int = Field(description="other scenes at most that erasers were fitted on, for each factor")
    num_token_scenes: int = Field(description="scenes at most whose first pictures had their tokens shuffled and averaged")
    num_others: int = Field(description="other open questions at most for each pair that is patched or erased; scenes take turns")
    shrinkage: bool = Field(
        default=True, description="whether erasers shrink the tokens' covariance (on the fitted tokens, movement is then not the least)"
    )
    patch: tuple[Patch, ...] = Field(description="by factor and site")
    erase: tuple[Erasure, ...] = Field(description="by factor and site")
    shuffle: tuple[SiteDisturbance, ...] = Field(description="by site: the picture's vision tokens permuted, one permutation a picture")
    mean: tuple[SiteDisturbance, ...] = Field(description="by site: each of the picture's vision tokens replaced by their mean")
