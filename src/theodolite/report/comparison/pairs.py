"""The pairs behind the counts of a comparison, packed into its page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import polars as pl

from theodolite.report.words import show_count

# About 2 MB packed; more would make the page larger than a mail takes kindly.
MOST_PAIRS = 20_000
GROUPS: Mapping[str, str] = {"both": "both right", "only_one": "only {0} right", "only_other": "only {1} right", "neither": "neither right"}
COLUMNS = ("scene_label", "row", "factor", "value_before", "value_after", "query", "form", "question_before")
ANSWERS = ("truth_before", "truth_after", "answer_before", "answer_after", "answer_before_other", "answer_after_other", "right_by")


def pair_list(rows: pl.DataFrame) -> dict[str, Any]:
    """The first pairs of every group as a table: `columns`, and `rows` of one list each; texts only, null where there is none.

    Pairs that one model alone answers right come first: where there are more than `MOST_PAIRS`, others are left out.
    """
    named = rows.with_columns(
        scene_label=pl.coalesce(*([pl.col("scene_name")] if "scene_name" in rows.columns else []), pl.col("scene").cast(pl.String())),
        **{name: pl.lit(None, pl.String()) for name in (*COLUMNS, *ANSWERS) if name not in rows.columns and name != "scene_label"},
    )
    alone = pl.col("right_by").is_in(["only_one", "only_other"])
    shown = named.sort(alone, descending=True, maintain_order=True).head(MOST_PAIRS).select(*COLUMNS, *ANSWERS)
    return {"columns": shown.columns, "rows": [list(row) for row in shown.iter_rows()]}


def pair_list_json(rows: pl.DataFrame) -> str:
    return json.dumps(pair_list(rows), ensure_ascii=False, separators=(",", ":"))


def left_out(rows: pl.DataFrame) -> str:
    """A sentence on the pairs that are not listed; empty where all are."""
    if rows.height <= MOST_PAIRS:
        return ""
    return (
        f"Of {show_count(rows.height)} pairs the first {show_count(MOST_PAIRS)} are listed, those that one model alone answers right first."
    )
