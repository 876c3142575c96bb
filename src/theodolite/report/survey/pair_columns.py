"""The answered pairs of a page as columns: each pair once, with the replies of all models that were asked it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from theodolite.records.rows import NAMED
from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.outcomes import NEEDED, with_outcomes
from theodolite.report.survey.pairs_address import OUTCOME_MEANING, OUTCOME_WORD, Outcome, PairKind

TEXTS = (
    "kind", "scene", "scene_name", "row", "path_before", "path_after", "factor", "value_before", "value_after",
    "query", "form", "name", "question_before", "question_after", "choices",
)  # fmt: skip
# Two rows of different models with equal values in all of these are one pair.
IDENTITY = (*TEXTS, "truth_before", "truth_after", "picture_before", "picture_after")
ANSWERS = ("answer_before", "answer_after", "probabilities_before", "probabilities_after", "outcome", "severity")
KIND_WORD: Mapping[PairKind, str] = {
    "intervention": "one factor changes",
    "nuisance": "noise: another nuisance seed",
    "perturbation": "noise: the picture changed slightly",
    "paraphrase": "noise: another wording",
}


@dataclass(frozen=True, eq=False)
class Reply:
    """One model's answers to a pair: places among the choices, None where unanswered, as are the probabilities."""

    model: int
    answer_before: str | None
    answer_after: str | None
    probabilities_before: tuple[float, ...] | None
    probabilities_after: tuple[float, ...] | None
    outcome: Outcome
    severity: float


@dataclass(frozen=True, eq=False)
class AnsweredPair:
    """One pair under one question: its row without answers (`IDENTITY`), the number of its pool of pictures, and its replies."""

    row: Mapping[str, Any]
    pool: int
    replies: tuple[Reply, ...]

    @property
    def severity(self) -> float:
        """The largest severity of its replies, 0 to 3 (`outcomes.with_outcomes`)."""
        return max(reply.severity for reply in self.replies)

    def picture(self, side: str) -> tuple[int, int]:
        """Pool and number of a picture, side *before* or *after*."""
        return self.pool, self.row[f"picture_{side}"]


def has_rows(arm: SurveyArm) -> bool:
    """Whether the answered rows of a model are stored, with the columns that pairs need."""
    return arm.stored.rows is not None and {*NEEDED, *ANSWERS[:4], "variation", "picture_before"} <= set(arm.stored.rows.columns)


def pools_of(arms: Sequence[SurveyArm]) -> dict[str, int]:
    """The numbers of the page's pools of pictures by their hash: models with equal pictures share one."""
    return {digest: number for number, digest in enumerate(dict.fromkeys(arm.record.pictures_sha256 for arm in arms))}


def answered_pairs(arms: Sequence[SurveyArm]) -> list[AnsweredPair]:
    """All pairs of the models whose rows are stored, in order of first mention; models are numbered as in `arms`."""
    pools = pools_of(arms)
    rows: dict[Hashable, dict[str, Any]] = {}
    replies: dict[Hashable, list[Reply]] = {}
    for model, arm in enumerate(arms):
        if not has_rows(arm):
            continue
        pool, seen = pools[arm.record.pictures_sha256], Counter[Hashable]()
        for row in _with_names(with_outcomes(_rows(arm))).iter_rows(named=True):
            identity = (pool, *(tuple(row[name]) if name == "choices" else row[name] for name in IDENTITY))
            # A pair that occurs twice in one survey is two pairs.
            key = (identity, seen[identity])
            seen[identity] += 1
            rows.setdefault(key, {name: row[name] for name in IDENTITY} | {"pool": pool})
            answers: list[Any] = [tuple(row[name]) if isinstance(row[name], list) else row[name] for name in ANSWERS]
            replies.setdefault(key, []).append(Reply(model, *answers))
    return [AnsweredPair(row, row["pool"], tuple(replies[key])) for key, row in rows.items()]


def _rows(arm: SurveyArm) -> pl.DataFrame:
    assert arm.stored.rows is not None
    return arm.stored.rows


def _with_names(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.with_columns(pl.lit(None, dtype=column.dtype).alias(name) for name, column in NAMED.items() if name not in rows.columns)


def pair_columns(pairs: Sequence[AnsweredPair], arms: Sequence[SurveyArm], files: Mapping[int, Mapping[int, str]]) -> dict[str, Any]:
    """The pairs as JSON for the page's script: a column a field, repeated values once, probabilities in hundredths.

    `files` are addresses of original pictures by pool and number.
    """
    return {
        "models": [arm.label for arm in arms],
        "pair_kinds": [arm.record.world.pair_kind if arm.record.world else "exact" for arm in arms],
        "outcomes": [[word, OUTCOME_WORD[word], OUTCOME_MEANING[word]] for word in OUTCOME_WORD],
        "kinds": KIND_WORD,
        "texts": {name: _coded(pair.row[name] for pair in pairs) for name in TEXTS},
        "numbers": {
            **{f"truth_{side}": [pair.row["choices"].index(pair.row[f"truth_{side}"]) for pair in pairs] for side in ("before", "after")},
            **{f"picture_{side}": [pair.row[f"picture_{side}"] for pair in pairs] for side in ("before", "after")},
            "pool": [pair.pool for pair in pairs],
        },
        "replies": [_reply_columns(model, pairs) for model in range(len(arms))],
        "files": files,
    }


def _reply_columns(model: int, pairs: Sequence[AnsweredPair]) -> dict[str, Any]:
    own = [(number, pair.row["choices"], reply) for number, pair in enumerate(pairs) for reply in pair.replies if reply.model == model]
    words = list(OUTCOME_WORD)
    return {
        "pair": [number for number, _, _ in own],
        "outcome": [words.index(reply.outcome) for _, _, reply in own],
        "severity": [round(1000 * reply.severity) for _, _, reply in own],
        "answer_before": [_place(choices, reply.answer_before) for _, choices, reply in own],
        "answer_after": [_place(choices, reply.answer_after) for _, choices, reply in own],
        "before": _coded(_hundredths(reply.probabilities_before) for _, _, reply in own),
        "after": _coded(_hundredths(reply.probabilities_after) for _, _, reply in own),
    }


def _place(choices: Sequence[str], answer: str | None) -> int:
    """The place of an answer among the choices; -1 where unanswered."""
    return -1 if answer is None else choices.index(answer)


def _hundredths(values: Sequence[float] | None) -> list[int] | None:
    # As the tables round: two decimals.
    return None if values is None else [int(f"{value:.2f}".replace(".", "")) for value in values]


def _coded(values: Iterable[Any]) -> list[Any]:
    """A column as its distinct values, in order of first mention, and for each entry the place of its value."""
    distinct: dict[Hashable, int] = {}
    kept: list[Any] = []
    codes = []
    for value in values:
        key = tuple(value) if isinstance(value, list) else value
        if key not in distinct:
            distinct[key] = len(kept)
            kept.append(value)
        codes.append(distinct[key])
    return [kept, codes]
