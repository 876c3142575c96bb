"""Surveys with measures, comparisons and advised training as commands run them: real processes and real files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.command_line import warm_theodolite as theodolite
from helpers.tiny_llava import TINY, WORLD, tiny_vlm
from theodolite.asking.prompts import TEMPLATES, added_text, prompt_hash
from theodolite.models.construction.build import build_vlm
from theodolite.models.export import export_vlm
from theodolite.records.survey import read_survey


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Surveys of two models on the same pairs, one with measures of the inside."""
    home = tmp_path_factory.mktemp("surveys")
    for seed in (0, 1):
        export_vlm(*tiny_vlm(seed), home / f"model-{seed}")
    base = ("--world", "shapes", "--ask", "shape,row", "--scenes", "6", "--batch", "8")
    measures = "ladder,likeness,gap,causal"
    first = theodolite("survey", home / "model-0", "--out", home / "one", "--measures", measures, *base)
    assert first.returncode == 0, first.stderr
    for words in ("questions: 472 pictures", "capture: one pass over 66 pictures, 594 questions in all", "causal: about", "pairs a second"):
        assert words in first.stdout, first.stdout
    assert theodolite("survey", home / "model-1", "--out", home / "other", *base).returncode == 0
    return home / "one", home / "other"


def test_a_survey_looks_inside_says_its_cost_and_records_how_fast_it_was(records: tuple[Path, Path]) -> None:
    found, run = read_survey(records[0]), json.loads((records[0] / "run.json").read_text())
    assert found.inside is not None and found.inside.measures == ("ladder", "likeness", "causal", "gap")
    assert found.inside.geometry is None and found.inside.causal is not None
    assert run["pairs_per_s"] > 0 and run["rows_at_once"] == 8 and {"capture", "ladder", "causal"} <= set(run["seconds_by_part"])
    assert read_survey(records[1]).inside is None


def test_a_survey_ends_with_all_verdicts_its_page_and_the_next_command(records: tuple[Path, Path], tmp_path: Path) -> None:
    out, table = tmp_path / "named", tmp_path / "cells.csv"
    base = ("--world", "shapes", "--ask", "shape", "--scenes", "3", "--batch", "8")
    done = theodolite("survey", records[0].parent / "model-0", "--out", out, *base, "--title", "My model", "--csv", table, columns=60)
    assert done.returncode == 0, done.stderr
    found, lines = read_survey(out), done.stdout.splitlines()
    assert found.title == "My model" and "My model" in (out / "report.html").read_text()
    assert lines[-3:-1] == [f"record: {out / 'survey.json'}", f"report: {out / 'report.html'}"]
    assert lines[-1].startswith("next: theodolite ")
    for factor, verdict in found.shadows.verdicts.items():
        assert any(line.startswith(f"{factor}: {verdict.replace('_', ' ')}; ") for line in lines), factor
    cells = pl.read_csv(table)
    assert len(cells) == len(found.shadows.cells) and {"moved_frac", "verdict"} <= {*cells.columns}
    again = theodolite("survey", records[0].parent / "model-0", "--out", tmp_path / "x", *base, "--csv", table)
    assert again.returncode == 2 and "exists" in again.stderr and not (tmp_path / "x").exists()


def test_a_report_takes_a_folder_of_surveys_and_writes_beside_them(records: tuple[Path, Path]) -> None:
    home = records[0].parent
    done = theodolite("report", home)
    assert done.returncode == 0 and done.stdout == f"report: {home / 'report.html'}\n", done.stderr
    assert "model-0" in (home / "report.html").read_text() and "model-1" in (home / "report.html").read_text()


def test_two_surveys_of_models_that_answer_otherwise_compare_no_query_and_say_so(records: tuple[Path, Path], tmp_path: Path) -> None:
    """Untrained models put their probability outside the choices; measurement/survey/test_compare.py compares models that do not."""
    out = tmp_path / "comparison.json"
    done = theodolite("compare", *records, "--json", "--out", out)
    assert done.returncode == 0 and done.stdout == out.read_text()
    comparison = json.loads(done.stdout)
    assert comparison["cells"] == [] and {"shape", "row"} <= {query.split()[0] for query in comparison["one"]["withheld"]}
    again = theodolite("compare", *records, "--out", out)
    assert again.returncode == 2 and "exists" in again.stderr
    shown = theodolite("compare", *records, "--csv", tmp_path / "cells.csv", columns=80).stdout
    assert "not compared" in shown and "\u2026" not in shown and "verdict" in shown.splitlines()[0]
    assert pl.read_csv(tmp_path / "cells.csv").is_empty()


def test_the_report_of_a_survey_that_looked_inside_opens_with_it(records: tuple[Path, Path], tmp_path: Path) -> None:
    done = theodolite("report", *records, "--out", tmp_path / "page.html")
    assert done.returncode == 0 and "Inside the model" in (tmp_path / "page.html").read_text()


def test_the_prompt_and_the_score_are_options_that_the_record_keeps(tmp_path: Path) -> None:
    added = [added_text(style, 6) for style in TEMPLATES]
    export_vlm(*build_vlm([*WORLD.texts, *added], 0, decoder=TINY, frontend="patches"), tmp_path / "model")
    base = ("--world", "shapes", "--ask", "shape", "--scenes", "3", "--batch", "8")
    for out, how in (("plain", ()), ("other", ("--prompt", "letters", "--score", "per_token"))):
        done = theodolite("survey", tmp_path / "model", "--out", tmp_path / out, *base, *how)
        assert done.returncode == 0, done.stderr
    plain, other = (read_survey(tmp_path / name).model for name in ("plain", "other"))
    assert (plain.prompt, plain.prompt_sha256, plain.score) == ("free", prompt_hash("free"), "total")
    assert (other.prompt, other.prompt_sha256, other.score) == ("letters", prompt_hash("letters"), "per_token")
    rows = pl.read_parquet(tmp_path / "other" / "rows.parquet")
    per_token = [np.array(row["total_logprob_after"]) / row["num_tokens_after"] for row in rows.iter_rows(named=True)]
    assert [row["choices"][at.argmax()] for row, at in zip(rows.iter_rows(named=True), per_token, strict=True)] == rows[
        "answer_after"
    ].to_list()
    refused = theodolite("compare", tmp_path / "plain", tmp_path / "other")
    assert refused.returncode == 2 and "write their questions differently" in refused.stderr


def test_a_plan_prints_what_the_pairs_can_show_and_loads_no_model() -> None:
    base = ("survey", "no-such-model", "--world", "shapes", "--ask", "shape,row", "--plan")
    few, many = (theodolite(*base, "--scenes", number, columns=140).stdout for number in ("35", "36"))
    assert "too few scenes" in few and "can be shown" not in few
    assert "can be shown" in many and "too few scenes" not in many and "36 scenes or more" in many
    alone = theodolite("survey", "x", "--world", "shapes", "--ask", "shape", "--scenes", "40", "--plan", columns=140).stdout
    assert "not measured" in alone  # nothing that shape could leak into
    strict = theodolite(*base, "--scenes", "36", "--leak-above-noise", "0.05", columns=140)
    assert "too few scenes" in strict.stdout, strict.stderr


def test_thresholds_of_the_command_line_are_those_of_the_record(records: tuple[Path, Path], tmp_path: Path) -> None:
    thresholds = ("--read-frac", "0.3", "--leak-above-noise", "0.2", "--confidence", "0.9")
    base = ("--world", "shapes", "--ask", "shape,row", "--scenes", "3", "--batch", "8")
    done = theodolite("survey", records[0].parent / "model-0", "--out", tmp_path / "out", *base, *thresholds)
    assert done.returncode == 0, done.stderr
    found = read_survey(tmp_path / "out").shadows
    assert (found.thresholds.read_frac, found.thresholds.leak_above_noise_frac, found.thresholds.confidence) == (0.3, 0.2, 0.9)
    assert "more scenes would decide it" in done.stdout or "not measured" in done.stdout
    assert {other.read_frac for other in found.sensitivity} <= {0.3, 0.7}
