"""Two surveys of the same pairs on disk, with planted habits of answering, for tests of comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from helpers import survey_records as made
from theodolite.records.survey import SurveyRecord

NUM_SCENES = 40
VALUES = {"shape": ["round", "square", "crossed"], "colour": ["red", "blue", "green"]}
Habits = Mapping[tuple[str, str], float]  # (factor, query) -> how often the answer follows the factor
SHADOW: Habits = {("shape", "shape"): 0.1, ("colour", "colour"): 0.9, ("colour", "shape"): 0.95}
CURED: Habits = {("shape", "shape"): 0.9, ("colour", "colour"): 0.9, ("colour", "shape"): 0.05, ("size", "shape"): 0.3}


def answered_rows(habits: Habits, seed: int) -> pl.DataFrame:
    """Interventions on shape, colour and size, each asked about shape and colour: columns of `records.rows` that comparisons use."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for scene in range(NUM_SCENES):
        for number, factor in enumerate(("shape", "colour", "size")):
            for query, values in VALUES.items():
                moved = bool(rng.random() < habits.get((factor, query), 0.0))
                truth = (values[0], values[1] if factor == query else values[0])
                answer = (values[0], values[1] if moved else values[0])
                change = VALUES.get(factor, ["small", "large"])
                rows.append(
                    {
                        "kind": "intervention", "scene": scene, "factor": factor, "value_before": change[0], "value_after": change[1],
                        "query": query, "form": "open", "name": query,
                        "question_before": f"what {query}?", "question_after": f"what {query}?",
                        "choices": values, "truth_before": truth[0], "truth_after": truth[1], "answer_before": answer[0],
                        "answer_after": answer[1], "picture_before": 10 * scene, "picture_after": 10 * scene + number + 1,
                        "scene_name": f"scene <{scene}>", "row": f"r{scene}", "moved": moved, "right": answer == truth,
                        "variation": 0.8 * moved,
                    }
                )  # fmt: skip
    return pl.DataFrame(rows)


def write_surveys(folder: Path, **changed: object) -> tuple[Path, Path]:
    """The folders of a survey that takes colour for shape and of one that does not; `changed` are fields of the second record."""
    first, second, _ = made.three_records()
    one, other = answered_rows(SHADOW, 0), answered_rows(CURED, 1)
    return _written(folder / "one", first, one), _written(folder / "other", second.model_copy(update=changed), other)


def _written(folder: Path, record: SurveyRecord, rows: pl.DataFrame) -> Path:
    made.write(folder, record)
    rows.write_parquet(folder / "rows.parquet")
    return folder
