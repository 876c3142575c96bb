"""The readout ladder: accuracy of a linear probe for each factor, site by site up to the spoken answer, and where a factor is lost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Estimate, Part, Rate

Pooling = Literal["mean", "max"]
Step = Literal["not perceived", "not kept", "not said", "said", "no words", "undecided"]


class LadderThresholds(Part):
    """Thresholds of the summary, in normalised accuracy: 0 is chance, 1 is always right."""

    present_frac: float = Field(default=0.5, description="present: the interval lies above it; absent: below it, 0 to 1")
    loss_frac: float = Field(default=0.1, description="a loss: the adjusted interval of the paired drop lies above it, 0 to 1")
    confidence: float = Field(default=0.95, description="level of all intervals, 0 to 1")


class Rung(Part):
    """Accuracy for a factor at one site, on held-out pictures: of the spoken answer at `spoken`, elsewhere of a probe."""

    site: str = Field(description="encoder, connector, layer.1 to layer.L, answer or spoken")
    pooling: Pooling | None = Field(
        description="pooling of vision tokens that was more accurate on left-out training scenes; null where nothing is pooled"
    )
    accuracy: Rate = Field(description="share of held-out pictures that are decoded right, 0 to 1")
    mean: Rate | None = Field(description="the same from the mean over vision tokens; null where nothing is pooled")
    max: Rate | None = Field(description="the same from the maximum over vision tokens, by channel; null where nothing is pooled")
    control: Rate | None = Field(
        description="accuracy of the same probe at the control task, 0 to 1: labels are a random function of the other factors' values; "
        "mean of several draws, on held-out pictures whose combination of those values training has; null where nothing is trained, "
        "and where the other factors' values are not known"
    )
    selectivity: Estimate | None = Field(
        description="accuracy minus control on the same pictures, -1 to 1, paired by picture; null where control is: not measured"
    )
    normalised: Estimate = Field(description="(accuracy - chance) / (1 - chance): 0 is chance, 1 is always right")
    drop: Estimate | None = Field(
        description="normalised accuracy lost since the rung before, paired by picture, -1 to 1 and beyond, with the interval of one drop: "
        "the largest of many is judged by `loss`; null at the first rung"
    )
    penalty: float | None = Field(description="ridge penalty chosen on training scenes, in units of the mean squared length of an input")


class PositionMap(Part):
    """Accuracy of a probe for a factor on the vision token at each position, on held-out pictures."""

    site: str = Field(description="site whose single tokens were kept")
    num_pictures: int = Field(description="pictures whose tokens were kept, on both sides of the split")
    cells: tuple[tuple[int, int], ...] | None = Field(description="row and column of each token; null where pictures differ in their grids")
    accuracy_frac: tuple[float, ...] = Field(description="share of held-out pictures that are decoded right, 0 to 1, by token")
    low: tuple[float | None, ...] = Field(description="lower ends of the intervals")
    high: tuple[float | None, ...] = Field(description="upper ends of the intervals")
    penalty: float = Field(description="ridge penalty of all its probes, chosen on training scenes from the mean over positions")


class Loss(Part):
    """Where a factor is lost on its way to the spoken answer."""

    step: Step = Field(
        description="not perceived: absent at the encoder and at all sites after it; not kept: present, then absent from some site to the"
        " answer position; not said: present at the answer position, not in the words; said: in the words; no words: present at the"
        " answer position, and no question can ask for it; undecided: an interval includes a threshold that matters"
    )
    kept_at: str | None = Field(description="not kept and not said: the last site before the loss; else null")
    lost_at: str | None = Field(description="not kept and not said: the first site after the loss; else null")
    drop: Estimate | None = Field(
        description="normalised accuracy lost between the two, paired by picture; its interval is one of `num_drops` that hold together"
    )
    num_drops: int = Field(
        default=1,
        description="number of drops among which the error rate of the interval was divided (Bonferroni); 1 also in older surveys, "
        "whose interval is that of one drop chosen in advance",
    )


class FactorLadder(Part):
    """The rungs of one factor, in the order of the model, and the step at which it is lost."""

    chance_frac: float = Field(description="share of the commonest value among held-out pictures, 0 to 1")
    num_training_scenes: int = Field(description="scenes that probes were trained on")
    control_factors: tuple[str, ...] = Field(
        default=(), description="factors whose combination of values determines the labels of the control task; none where there is none"
    )
    num_combinations: int | None = Field(
        default=None,
        description="number of those combinations; null without a control task, and in older surveys, whose control had labels shuffled "
        "among training scenes",
    )
    answer_query: str | None = Field(description="the open query at whose answer position the answer rung reads; null if none was captured")
    rungs: tuple[Rung, ...] = Field(description="from the encoder to the spoken answer")
    positions: tuple[PositionMap, ...] = Field(
        description="one for each site whose single tokens were kept; none where there were too few pictures"
    )
    loss: Loss = Field(description="the step at which the factor is lost")


class Ladder(Part):
    """The readout ladder of every factor."""

    thresholds: LadderThresholds = Field(description="thresholds of the summary")
    factors: dict[str, FactorLadder] = Field(description="by factor")
    left_out: dict[str, str] = Field(description="factors without a ladder, each with the reason")
