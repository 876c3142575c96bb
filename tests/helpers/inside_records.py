"""What a survey found inside a model, made by hand for tests of the report: valid, all numbers different, measured on nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count, product
from typing import Any

from helpers.survey_records import rate
from theodolite.records.allocation import Allocation, LayerAllocation
from theodolite.records.causal import Causal, Disturbance, Erased, ErasedProbe, Erasure, Patch, Response, Responses, SiteDisturbance
from theodolite.records.fisher import DirectionGradient, Energy, Fisher
from theodolite.records.gap import Gap, SiteGap
from theodolite.records.geometry import Directions, Equivalence, Geometry, Hierarchy, Overlap, Shape, Simplex, SiteGeometry, Tested
from theodolite.records.identifiability import Blocks, Identifiability, SiteIdentifiability
from theodolite.records.inside import Inside
from theodolite.records.ladder import FactorLadder, Ladder, LadderThresholds, Loss, PositionMap, Rung, Step
from theodolite.records.likeness import Likeness, SiteLikeness
from theodolite.records.part import Estimate, Rate
from theodolite.records.words import FactorWords, Lens, ShownLens, ShownPicture, SiteWords, TextStates, Words

FACTORS = ("shape", "colour", "sheen")
HOSTILE_WORD = "</script><script>console.error('owned')</script>"
QUERIES = ("shape", "colour")
LAYERS = ("layer.1", "layer.2", "layer.3")
SITES = ("encoder", "connector", *LAYERS)
CAUSAL_SITES = ("connector", "layer.2")
MEASURES = ("ladder", "likeness", "allocation", "geometry", "fisher", "causal", "gap", "identifiability", "words")
LOSSES: dict[str, tuple[Step, str | None, str | None]] = {
    "shape": ("not kept", "layer.2", "layer.3"),
    "colour": ("said", None, None),
    "sheen": ("not perceived", None, None),
}


class Numbers:
    """Numbers between 0 and 1 of which no two are alike to three decimals."""

    def __init__(self, start: int) -> None:
        self._next = count(start)

    def frac(self) -> float:
        return (next(self._next) * 617 % 997) / 1000

    def hierarchy(self) -> Hierarchy:
        return Hierarchy(group_cos=self.frac(), low=0.0, high=0.2, chance=0.1, p=0.3, least_p=0.3)

    def equivalence(self) -> Equivalence:
        return Equivalence(estimate=self.estimate(), lower=0.1, upper=0.3, bound=0.05, finding="overlapping")

    def rate(self) -> Rate:
        return rate(self.frac(), 30)

    def estimate(self, scale: float = 1.0) -> Estimate:
        value = scale * self.frac()
        return Estimate(value=value, low=value - 0.07 * scale, high=value + 0.07 * scale, num_scenes=30)

    def tested(self) -> Tested:
        return Tested(estimate=self.estimate(), chance=self.frac() / 10, p=0.01, p_adjusted=0.02)


def ladder(numbers: Numbers, factors: Sequence[str], side: int) -> Ladder:
    def rung(site: str, first: bool) -> Rung:
        pooled, told = site in SITES, site != "spoken"
        return Rung(
            site=site, pooling="mean" if pooled else None, accuracy=numbers.rate(), mean=numbers.rate() if pooled else None,
            max=numbers.rate() if pooled else None, control=numbers.rate() if told else None,
            selectivity=numbers.estimate() if told else None,
            normalised=numbers.estimate(), drop=None if first else numbers.estimate(), penalty=0.1 if told else None,
        )  # fmt: skip

    def one(factor: str) -> FactorLadder:
        step, kept, lost = LOSSES[factor]
        grid = tuple(product(range(side), range(side)))
        fracs = tuple(numbers.frac() for _ in range(side * side))
        return FactorLadder(
            chance_frac=0.25, num_training_scenes=36, control_factors=("row", "size"), num_combinations=12,
            answer_query=factor if factor in QUERIES else "shape",
            rungs=tuple(rung(site, site == "encoder") for site in (*SITES, "answer", "spoken")),
            positions=tuple(
                PositionMap(site=site, num_pictures=40, cells=grid, accuracy_frac=fracs, low=fracs, high=fracs, penalty=1.0)
                for site in ("connector", "layer.2")
            ),
            loss=Loss(step=step, kept_at=kept, lost_at=lost, drop=numbers.estimate() if lost else None),
        )  # fmt: skip

    return Ladder(thresholds=LadderThresholds(), factors={factor: one(factor) for factor in factors}, left_out={"row": "one value only"})


def geometry(numbers: Numbers) -> Geometry:
    def shape() -> Shape:
        return Shape(
            factors={
                factor: Directions(
                    consistency=None if factor == "sheen" else numbers.tested(), rank=3, num_differences=60,
                    simplex=Simplex(
                        regularity=numbers.estimate(), plug_in=0.99, signal_frac=numbers.estimate(), cosine_gap=0.1, norm_spread=0.1
                    ),
                    hierarchy=numbers.hierarchy() if factor == "colour" else None,
                )
                for factor in FACTORS
            },
            overlaps=(
                Overlap(first="shape", second="colour", overlap=numbers.tested(), random=0.03, equivalence=numbers.equivalence()),
                Overlap(first="shape", second="sheen", overlap=numbers.tested(), random=0.03),
            ),
        )  # fmt: skip

    sites = {site: SiteGeometry(euclidean=shape(), causal=None if site == "encoder" else shape()) for site in SITES}
    return Geometry(pooling="mean of vision tokens", num_shuffles=200, num_words=500, unembedding_rank=128, sites=sites)


def fisher(numbers: Numbers) -> Fisher:
    return Fisher(
        num_scenes=30, num_cases=60, num_tokens=16, dim=128, trace=numbers.estimate(40.0),
        trace_by_query={query: numbers.estimate(40.0) for query in QUERIES}, spectrum=(0.7, 0.2, 0.1), entropy_rank=2.2,
        participation_rank=1.9,
        chance_slope=0.0091,
        energies=tuple(
            Energy(
                factor=factor, query=query, energy=None if (factor, query) == ("sheen", "colour") else numbers.estimate(300.0),
                energy_span=numbers.estimate(30.0), slope=numbers.estimate(), slope_span=numbers.estimate(), num_flat=3, num_cases=60,
            )
            for factor in FACTORS
            for query in QUERIES
        ),
        gradients=tuple(
            DirectionGradient(
                factor=factor, asked=factor in QUERIES, gradient=numbers.estimate(), size=numbers.estimate(), random=numbers.estimate(),
                nuisance=None, excess_random=numbers.estimate(), excess_nuisance=None, share_of_asked=numbers.estimate(), num_cases=60,
            )
            for factor in FACTORS
        ),
    )  # fmt: skip


def causal(numbers: Numbers) -> Causal:
    def response() -> Response:
        return Response(moved=numbers.rate(), becomes=numbers.rate(), variation=numbers.estimate())

    def responses() -> Responses:
        return Responses(own=response(), others=response())

    def erased() -> Erased:
        return Erased(accuracy=numbers.rate(), read=numbers.rate(), others=numbers.rate())

    def disturbance() -> Disturbance:
        return Disturbance(
            moved=numbers.rate(), variation=numbers.estimate(), accuracy_before=numbers.rate(), accuracy_after=numbers.rate()
        )

    def disturbed(site: str) -> SiteDisturbance:
        return SiteDisturbance(site=site, overall=disturbance(), by_query={query: disturbance() for query in QUERIES})

    places = tuple(product(QUERIES, CAUSAL_SITES))
    return Causal(
        sites=CAUSAL_SITES, subspace_sites=CAUSAL_SITES, num_patch_scenes=12, num_erase_scenes=12, num_fit_scenes=30, num_token_scenes=32,
        num_others=2,
        patch=tuple(
            Patch(
                site=site, factor=factor, rank=3, subspace=responses(), whole=responses(), random_direction=responses(),
                shuffled_direction=responses(), other_direction=responses(), other_factor="sheen", other_moved=numbers.rate(),
                by_query={query: numbers.rate() for query in QUERIES},
            )
            for factor, site in places
        ),
        erase=tuple(
            Erasure(
                site=site, factor=factor, rank=3, before=erased(), after=erased(), control=erased(),
                probe=ErasedProbe(
                    before=numbers.rate(), after=numbers.rate(), nonlinear=numbers.rate(), chance_frac=0.25, num_training_scenes=18
                ),
                lost=numbers.estimate(),
                others_lost={query: numbers.estimate() for query in QUERIES if query != factor},
                moved={query: numbers.rate() for query in QUERIES},
            )
            for factor, site in places
        ),
        shuffle=tuple(disturbed(site) for site in CAUSAL_SITES),
        mean=tuple(disturbed(site) for site in CAUSAL_SITES),
    )  # fmt: skip


def identifiability(numbers: Numbers) -> Identifiability:
    def blocks() -> Blocks:
        return Blocks(
            linear_r2=numbers.estimate(), nonlinear_r2=numbers.estimate(), penalty=0.1, nonlinear_penalty=0.01, width=1.0,
            completeness=numbers.frac(), informativeness=numbers.frac(), matched=numbers.frac(),
        )  # fmt: skip

    def site() -> SiteIdentifiability:
        return SiteIdentifiability(
            num_dims=96, num_axes=32, principal=True, kept_variance_frac=0.97, disentanglement=numbers.frac(), completeness=None,
            informativeness=numbers.frac(), mcc=numbers.frac(), linear_r2=numbers.frac(), nonlinear_r2=numbers.frac(),
            factors={factor: blocks() for factor in FACTORS},
        )  # fmt: skip

    return Identifiability(reason=None, num_pictures=330, num_scenes=30, max_axes=32, sites={name: site() for name in SITES}, left_out={})


def words(numbers: Numbers, side: int) -> Words:
    def factor() -> FactorWords:
        return FactorWords(share=numbers.estimate(), baseline=numbers.estimate(), excess=numbers.estimate(0.1), num_pictures=30)

    def lens(factors: Sequence[str], layers: dict[str, float]) -> Lens:
        return Lens(
            sites={
                site: SiteWords(strength=numbers.estimate(), text_layers=layers, factors={each: factor() for each in factors})
                for site in SITES[1:]
            },
            spellings={"red": ("red", "␣red"), "sheen": ()}, unnamed={"sheen": ("sheen-0", "sheen-1")},
            left_out={"sheen": "fewer than two of its values can be named"},
        )  # fmt: skip

    def shown(kind: str, site: str) -> ShownLens:
        own = tuple(f"{kind[0]}{site[-1]}{token} red {HOSTILE_WORD} a cup" for token in range(side * side))
        return ShownLens(lens=kind, site=site, words=own, strength=(0.25,) * (side * side), named={"colour": (1, 2), "shape": ()})

    def picture(scene: int) -> ShownPicture:
        return ShownPicture(
            scene_id=scene, picture=f"pictures/words-00000{scene}.png", values={"shape": "round", "colour": "red"},
            cells=tuple((0, row, column) for row, column in product(range(side), range(side))),
            lenses=tuple(shown(kind, site) for kind in ("logit", "latent") for site in ("connector", "layer.1", "layer.2", "layer.3")),
        )  # fmt: skip

    return Words(
        top_k=5, num_scenes=30, num_pictures=30, num_tokens=side * side, logit=lens(("shape", "colour"), {}),
        latent=lens(("shape",), {"layer.1": 0.75, "layer.2": 0.25}),
        states=TextStates(
            text="built in", text_sha256="0" * 64, num_sentences=368, num_states=1800, num_words=640, layers=("layer.1", "layer.2")
        ),
        shown=(picture(3), picture(4)),
    )  # fmt: skip


def inside(start: int = 1, *, side: int = 4, **changed: Any) -> Inside:
    """All measures of one model; another start gives other numbers."""
    numbers = Numbers(start)
    found = Inside(
        measures=MEASURES, num_scenes=30, num_pictures=330,
        ladder=ladder(numbers, FACTORS, side),
        likeness=Likeness(
            sites={
                site: SiteLikeness(cosine=None if site == "encoder" else numbers.estimate(), rank=numbers.estimate(40.0), num_pictures=330)
                for site in SITES
            }
        ),
        allocation=Allocation(
            num_scenes=30, num_questions=2,
            layers={
                site: LayerAllocation(
                    share=numbers.estimate(), baseline=numbers.estimate(), excess=numbers.estimate(0.1),
                    heads=(numbers.frac(), numbers.frac())
                )
                for site in LAYERS
            },
        ),
        geometry=geometry(numbers), fisher=fisher(numbers), causal=causal(numbers),
        gap=Gap(
            sites={
                site: SiteGap(
                    distance=numbers.estimate(5.0), relative=numbers.estimate(), chance_relative=0.08,
                    cosine=None if site == "connector" else numbers.estimate(), separable=numbers.rate(), num_pictures=330,
                )
                for site in SITES[1:]
            }
        ),
        identifiability=identifiability(numbers),
        words=words(numbers, side),
    )  # fmt: skip
    return found.model_copy(update=changed)
