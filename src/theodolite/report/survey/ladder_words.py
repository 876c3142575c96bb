"""The readout ladder in words: one sentence a factor, made by rule from the record."""

from __future__ import annotations

from theodolite.records.ladder import FactorLadder, Rung
from theodolite.report.words import show_measured


def ladder_sentence(factor: str, ladder: FactorLadder) -> str:
    """Where a factor can be decoded, and where it is lost, with the numbers that say so (normalised accuracy: 0 is chance)."""
    loss, rungs = ladder.loss, {rung.site: rung for rung in ladder.rungs}
    best = max(ladder.rungs, key=lambda rung: rung.normalised.value)
    if loss.step == "not perceived":
        return f"{factor} is not perceived: it is decoded best at {_at(best)}."
    if loss.step in ("not kept", "not said") and loss.kept_at in rungs and loss.lost_at in rungs:
        drop = ""
        if loss.drop is not None:
            value, ends = show_measured(loss.drop.value, loss.drop.low, loss.drop.high)
            drop = f", a drop of {value} {ends}"
        verb = "perceived but not kept" if loss.step == "not kept" else "kept to the answer position but not said"
        return f"{factor} is {verb}: {_at(rungs[loss.kept_at])}, and {_at(rungs[loss.lost_at])}{drop}."
    if loss.step == "said":
        return f"{factor} is said: {_at(ladder.rungs[-1])}."
    if loss.step == "no words":
        return f"{factor} is kept, and no question can ask for it: it is decoded best at {_at(best)}."
    return f"{factor} is undecided: it is decoded best at {_at(best)}, and an interval includes a threshold that matters."


def _at(rung: Rung) -> str:
    number = rung.normalised
    value, ends = show_measured(number.value, number.low, number.high)
    return f"{'the spoken answer' if rung.site == 'spoken' else rung.site} with {value} {ends}"
