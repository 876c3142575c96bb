"""Answers of models with planted habits, as rows of a survey."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import numpy as np
import polars as pl

from theodolite.measurement.behaviour.shadows import measure_shadows
from theodolite.measurement.pairs.plan import COLUMNS
from theodolite.records.survey import Shadows, Thresholds

FACTORS = ("shape", "colour", "row")
VALUES = ("a", "b", "c", "d")
Look = dict[str, str]  # a value for each factor, "nuisance", and "scene", which no change of nuisance touches
Model = Callable[[str, Look, int], str]  # query, picture and number of the wording to answer


def truth(query: str, look: Look) -> str:
    factor, _, value = query.partition("=")
    if not value:
        return look[factor]
    return "yes" if (look[factor.rstrip("!")] == value) != factor.endswith("!") else "no"


def about(query: str) -> str:
    return query.partition("=")[0].rstrip("!")


def answered(model: Model, queries: Sequence[str], num_scenes: int = 120, num_training: int = 150) -> pl.DataFrame:
    """Rows as a survey answers them: all interventions, a nuisance change and a paraphrase of each scene, and training questions
    on pictures in which colour follows shape nine times in ten."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, object]] = []
    pictures: dict[tuple[str, ...], int] = {}

    def add(kind: str, scene: int, factor: str, query: str, before: Look, after: Look, wording: int = 0) -> None:
        sides = {"before": (before, 0), "after": (after, wording)}
        row: dict[str, object] = {"kind": kind, "scene": scene, "factor": factor, "query": about(query), "name": query}
        row |= {"form": "yes_no" if "=" in query else "open", "choices": ["yes", "no"] if "=" in query else list(VALUES)}
        for side, (look, number) in sides.items():
            answer = model(query, look, number)
            row |= {
                f"value_{side}": look.get(factor),
                f"question_{side}": f"{query}, wording {number}",
                f"picture_{side}": pictures.setdefault(tuple(look.values()), len(pictures)),
            }
            row |= {f"truth_{side}": truth(query, look), f"answer_{side}": answer, f"outside_{side}": 0.25}
            row[f"probabilities_{side}"] = [float(choice == answer) for choice in row["choices"]]
        row["moved"] = row["answer_before"] != row["answer_after"]
        row["right"] = row["answer_before"] == row["truth_before"] and row["answer_after"] == row["truth_after"]
        row["variation"] = float(row["moved"])
        rows.append(row)

    def draw(scene: int) -> Look:
        return {name: str(rng.choice(VALUES)) for name in FACTORS} | {"nuisance": str(rng.integers(2**40)), "scene": str(scene)}

    for scene in range(num_scenes):
        base = draw(scene)
        other = {name: str(rng.choice([value for value in VALUES if value != base[name]])) for name in FACTORS}
        again = draw(scene)["nuisance"]
        for query in queries:
            for factor in FACTORS:
                add("intervention", scene, factor, query, base, base | {factor: other[factor]})
            add("nuisance", scene, "", query, base, base | {"nuisance": again})
            add("paraphrase", scene, "", query, base, base, wording=1)
    for scene in range(num_training):
        look = draw(scene)
        look["colour"] = look["shape"] if rng.random() < 0.9 else look["colour"]
        for query in queries:
            add("training", scene, "", query, look, look)
    more = {
        f"{name}_{side}": pl.Float64 if name == "outside" else pl.String for name in ("answer", "outside") for side in ("before", "after")
    }
    more |= {f"probabilities_{side}": pl.List(pl.Float64) for side in ("before", "after")}
    return pl.DataFrame(rows, schema={**COLUMNS, **more, "moved": pl.Boolean, "right": pl.Boolean, "variation": pl.Float64})


def shadows_of(rows: pl.DataFrame, asked: Sequence[str] | None = None, thresholds: Thresholds | None = None) -> Shadows:
    names = rows["name"].unique(maintain_order=True).to_list()
    dependence = {name: frozenset({about(name)}) for name in names}
    return measure_shadows(rows, FACTORS, dependence, frozenset(asked or names), thresholds or Thresholds())


def chance(salt: str, *what: str) -> float:
    """A number in 0 to 1 that is a fixed function of the arguments."""
    return int.from_bytes(hashlib.sha256(" ".join((salt, *what)).encode()).digest()[:4]) / 2**32


def wrong(answer: str) -> str:
    return VALUES[(VALUES.index(answer) + 1) % 4]


def honest(query: str, look: Look, wording: int) -> str:
    return truth(query, look)


def colour_for_shape(query: str, look: Look, wording: int) -> str:
    return look["colour"] if query == "shape" else truth(query, look)


def unsteady(*seen: str) -> Model:
    """Wrong about the shape two times in five, as a fixed function of the factors in `seen`."""

    def model(query: str, look: Look, wording: int) -> str:
        answer = truth(query, look)
        return wrong(answer) if query == "shape" and chance("unsteady", *(look[name] for name in seen)) < 0.4 else answer

    return model
