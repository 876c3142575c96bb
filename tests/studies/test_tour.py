"""The tour, short, as processes: what it writes, what proves the comparison, and that others can repeat it from disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.command_line import theodolite, warm_theodolite
from theodolite.records.survey import read_survey
from theodolite.records.training import read_training
from theodolite.studies.engine.arms import easy_vqa_arms, examples_of
from theodolite.worlds.registry import world_named

ARMS = ("agree", "all", "odd")


def test_a_tour_leaves_a_record_for_every_policy_and_a_report(short_tour: Path) -> None:
    assert (short_tour / "report.html").stat().st_size > 100_000
    for arm in ARMS:
        names = {path.name for path in (short_tour / arm).iterdir()}
        assert names == {"survey.json", "rows.parquet", "run.json", "thumbnails.parquet", "pictures", "model"}
        run = json.loads((short_tour / arm / "run.json").read_text())
        assert run["packages"]["torch"]
        assert run["attention"] == "sdpa"


def test_only_the_questions_differ_between_policies_and_the_record_proves_it(short_tour: Path) -> None:
    facts = {arm: read_survey(short_tour / arm).training for arm in ARMS}
    for name in ("pictures_sha256", "order_sha256", "num_pictures", "num_steps", "num_questions", "num_answer_tokens", "seed", "recipe"):
        assert len({getattr(found, name) for found in facts.values()}) == 1, name
    assert len({found.questions_sha256 for found in facts.values() if found}) == 3
    records = [read_survey(short_tour / arm) for arm in ARMS]
    assert len({record.model.weights_sha256 for record in records}) == 3
    assert len({record.pictures_sha256 for record in records}) == 1
    rows = [pl.read_parquet(short_tour / arm / "rows.parquet").filter(pl.col("kind") == "intervention") for arm in ARMS]
    keys = ["scene", "factor", "value_before", "value_after", "query", "question_before", "truth_before", "truth_after"]
    assert rows[0].select(keys).equals(rows[1].select(keys))
    assert rows[0].select(keys).equals(rows[2].select(keys))


def test_a_survey_from_disk_in_a_fresh_process_repeats_the_tours_record_to_the_byte(short_tour: Path, tmp_path: Path) -> None:
    done = theodolite("survey", short_tour / "odd" / "model", "--world", "shapes", "--scenes", "20", "--out", tmp_path / "again")
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "again" / "survey.json").read_bytes() == (short_tour / "odd" / "survey.json").read_bytes()
    first, second = (pl.read_parquet(folder / "rows.parquet") for folder in (short_tour / "odd", tmp_path / "again"))
    assert first.equals(second)


def test_a_second_run_keeps_what_is_there_and_prints_its_tables_and_another_tour_is_refused(short_tour: Path, tmp_path: Path) -> None:
    before = (short_tour / "all" / "survey.json").stat().st_mtime_ns
    again = warm_theodolite("tour", "--short", "--out", short_tour)
    assert again.returncode == 0, again.stderr[-3000:]
    assert again.stdout.count("kept from an earlier run") == 6
    assert (short_tour / "all" / "survey.json").stat().st_mtime_ns == before
    tables = again.stdout.rpartition("kept from an earlier run")[2]
    assert "one seed" in tables and all(arm in tables for arm in ARMS)
    other = warm_theodolite("tour", "--out", short_tour)
    assert other.returncode == 2
    assert "trained in another way" in other.stderr
    (tmp_path / "thesis.tex").write_text("x")
    foreign = warm_theodolite("tour", "--short", "--out", tmp_path)
    assert foreign.returncode == 2
    assert "thesis.tex" in foreign.stderr


def test_the_cells_are_what_the_rows_say(short_tour: Path) -> None:
    record, rows = read_survey(short_tour / "agree"), pl.read_parquet(short_tour / "agree" / "rows.parquet")
    for cell in record.shadows.cells:
        part = rows.filter(
            (pl.col("kind") == "intervention")
            & (pl.col("factor") == cell.factor)
            & (pl.col("query") == cell.query)
            & (pl.col("form") == cell.form)
            & ((pl.col("truth_before") != pl.col("truth_after")) == cell.truth_moves)
        )
        assert cell.num_pairs == len(part)
        assert cell.moved_frac == pytest.approx((part["answer_before"] != part["answer_after"]).mean())
        assert cell.low is not None
        assert cell.high is not None
        assert cell.low <= cell.moved_frac <= cell.high
    best = rows.with_columns(top=pl.col("probabilities_before").list.arg_max())
    chosen = [choices[top] for choices, top in best.select("choices", "top").iter_rows()]
    assert chosen == rows["answer_before"].to_list()
    assert np.allclose(rows["probabilities_after"].list.sum(), 1.0)


def test_a_model_is_surveyed_on_pairs_from_a_file(short_tour: Path, tmp_path: Path) -> None:
    done = theodolite("world", "shapes", "--out", tmp_path / "w", "--pictures", "2", "--scenes", "4", "--ask", "shape,row=top")
    assert done.returncode == 0, done.stderr
    pairs, out = tmp_path / "w" / "manifest.jsonl", tmp_path / "out"
    done = warm_theodolite("survey", short_tour / "all" / "model", "--pairs", pairs, "--out", out, "--attn", "eager", "--batch", "3")
    assert done.returncode == 0, done.stderr[-3000:]
    record = read_survey(out)
    assert record.world is not None and record.world.name == "w" and not record.world.known_prior
    assert record.policy is None
    assert record.accuracy is not None and record.left_out == {}
    assert (record.accuracy.item.rate is not None) == bool(record.shadows.cells)  # of withheld queries there is neither
    assert record.coverage is None
    # Ten steps of training leave most of the probability outside the choices.
    assert {name.split()[0] for name in record.shadows.withheld} | {cell.query for cell in record.shadows.cells} == {"shape", "row"}
    assert record.noise == "given"  # the manifest brings noise rows
    assert record.shadows.evidence["shape"].asked
    page = theodolite("report", out, short_tour / "all", "--out", tmp_path / "page.html")
    assert page.returncode == 0, page.stderr
    assert theodolite("report", out, "--out", tmp_path / "page.html").returncode == 2


def test_training_records_tell_the_whole_setup(short_tour: Path) -> None:
    record = read_training(short_tour / "agree" / "model")
    assert record is not None
    assert record.setup.policy == "shape:agree,row:odd,row"
    assert record.setup.strength == 0.8
    assert [step for step, _ in record.losses] == [10]
    assert read_training(short_tour) is None


def test_the_policies_of_easy_vqa_ask_the_same_pictures_real_questions_and_as_many() -> None:
    every, *selected = easy_vqa_arms()
    examples = {arm.name: examples_of(arm, world_named("easy_vqa", arm.strength), 64, seed=0) for arm in selected}
    assert len({found.pictures_sha256 for found in examples.values()}) == 1
    assert {len(items) for found in examples.values() for items in found.questions} == {2}
    official = examples_of(every, world_named("easy_vqa"), 64, seed=0)
    texts = {item.question for items in official.questions for item in items}
    assert sum(len(items) for items in official.questions) == 38_575
    assert {item.question for found in examples.values() for items in found.questions for item in items} <= texts
