"""Surveys of answers that other tools have logged, as commands: the whole way round, and input that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from helpers.colour_pairs import answer_by_looking, lmms_eval_log, without, write_colour_manifest, write_lines
from helpers.command_line import warm_theodolite as theodolite
from theodolite.asking.prompts import prompt_hash
from theodolite.records.answers import AnswersConfig
from theodolite.records.survey import read_survey

Samples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest, its export as a task, the log of a model on it, and a survey of the log."""
    home = tmp_path_factory.mktemp("logs")
    manifest = write_colour_manifest(home / "pairs", 40)
    done = theodolite("manifest", "export", manifest, "--as", "lmms-eval", "--out", home / "task")
    assert done.returncode == 0, done.stderr
    lmms_eval_log(home / "task", home / "acme__eye" / "20261127_samples_theodolite_pairs.jsonl")
    (home / "acme__eye" / "20261127_results.json").write_text(json.dumps({"model_name": "acme/eye"}))
    return home


@pytest.fixture(scope="module")
def log(home: Path) -> Path:
    return home / "acme__eye" / "20261127_samples_theodolite_pairs.jsonl"


@pytest.fixture(scope="module")
def samples(log: Path) -> Samples:
    return [json.loads(line) for line in log.read_text().splitlines()]


def survey(log: Path, home: Path, out: Path, *more: str | Path) -> Any:
    return theodolite("survey", "acme/eye", "--answer-log", log, "--pairs", home / "pairs" / "manifest.jsonl", "--out", out, *more)


def refusal(log: Path, home: Path, out: Path, *more: str | Path) -> str:
    done = survey(log, home, out, *more)
    assert done.returncode == 2 and not out.exists()
    assert done.stderr.count("\n") == 1, done.stderr
    return str(done.stderr)


def test_the_verdicts_of_a_logged_model_are_those_of_its_rule(home: Path, log: Path, samples: Samples, tmp_path: Path) -> None:
    done = survey(log, home, tmp_path / "one")
    printed = " ".join(done.stdout.split())
    assert done.returncode == 0 and "joined by id, prompt letters, noise perturb" in printed and "note:" not in printed
    record = read_survey(tmp_path / "one")
    assert record.shadows.verdicts["colour"] == "entangled" and record.noise == "perturb"
    cells = {(cell.factor, cell.query): cell.moved_frac for cell in record.shadows.cells}
    assert cells == {("colour", "colour"): 1.0, ("colour", "edge"): 1.0, ("edge", "colour"): 0.0, ("edge", "edge"): 0.0}
    model = record.model
    assert isinstance(model, AnswersConfig) and (model.tool, model.name, model.logged_name) == ("lmms-eval", "acme/eye", "acme/eye")
    assert (model.num_logged, model.num_used, model.prompt_sha256) == (len(samples), len(samples), prompt_hash("letters"))
    assert record.pictures is None and record.shadows.outside_mass is None and record.examples
    assert survey(log, home, tmp_path / "two").returncode == 0
    assert (tmp_path / "one" / "survey.json").read_bytes() == (tmp_path / "two" / "survey.json").read_bytes()


def test_its_record_is_reported_and_compared_as_any_other(home: Path, log: Path, tmp_path: Path) -> None:
    blind = tmp_path / "acme__blind" / "1_samples_x.jsonl"
    lmms_eval_log(home / "task", blind, lambda picture, question: "red" if "colour" in question else answer_by_looking(picture, question))
    for out, which in (("one", log), ("other", blind)):
        assert survey(which, home, tmp_path / out).returncode == 0
    compared = theodolite("compare", tmp_path / "one", tmp_path / "other")
    assert compared.returncode == 0 and "do(colour)" in compared.stdout
    reported = theodolite("report", tmp_path / "one", tmp_path / "other", "--out", tmp_path / "page.html")
    assert reported.returncode == 0 and "answers read from 1_samples_x.jsonl of lmms-eval" in (tmp_path / "page.html").read_text()
    # The survey recorded where its pictures are, and stored small ones of the severest pairs.
    assert (tmp_path / "one" / "thumbnails.parquet").is_file()
    again = theodolite("report", tmp_path / "one", "--out", tmp_path / "page.html", "--pairs-dir", tmp_path / "beside", "--overwrite")
    assert again.returncode == 0 and again.stdout.splitlines()[-1] == f"pictures: {tmp_path / 'beside'}"
    originals = {path.read_bytes() for path in (home / "pairs" / "own").iterdir()}
    assert {path.read_bytes() for path in (tmp_path / "beside").iterdir()} == originals


def test_questions_without_a_row_and_rows_without_a_question_are_named(home: Path, samples: Samples, tmp_path: Path) -> None:
    other = {**samples[0], "theodolite_right": {**samples[0]["theodolite_right"], "id": "another"}}
    unclear = {**samples[1], "filtered_resps": ["A or B"]}
    log = write_lines(tmp_path / "log.jsonl", [other, unclear, *samples[2:]])
    done = survey(log, home, tmp_path / "out")
    assert done.returncode == 0
    out = " ".join(done.stdout.split())
    assert f"1 of {len(samples)} questions have no row in the log" in out and "own/0-base.png: What colour is it?" in out
    assert "1 answers name no choice or several" in out and "row 2: 'A or B'" in out
    assert "1 rows of the log are of no question of these pairs, such as row 1 (id another)" in out
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    assert rows["answer_before"].null_count() + rows["answer_after"].null_count() > 0


def test_rows_that_contradict_each_other_are_refused_and_equal_ones_are_not(home: Path, samples: Samples, tmp_path: Path) -> None:
    again = {**samples[0], "filtered_resps": [" (a)"]}
    assert survey(write_lines(tmp_path / "same.jsonl", [*samples, again]), home, tmp_path / "same").returncode == 0
    contrary = {**samples[0], "filtered_resps": ["B"]}
    words = refusal(write_lines(tmp_path / "log.jsonl", [*samples, contrary]), home, tmp_path / "out")
    assert f"rows 1 and {len(samples) + 1} answer one question (What colour is it?) differently, 'A.' and 'B'" in words


def test_a_result_table_of_vlmevalkit_is_read_by_letter_and_by_picture_and_question(home: Path, tmp_path: Path) -> None:
    done = theodolite("manifest", "export", home / "pairs" / "manifest.jsonl", "--as", "vlmevalkit", "--out", tmp_path / "kit")
    assert done.returncode == 0, done.stderr
    table = pl.read_csv(tmp_path / "kit" / "theodolite_pairs.tsv", separator="\t", infer_schema=False)
    # The tool drops the pictures and adds what the model said; options may stand in another order than the choices.
    table = table.with_columns(prediction="answer").drop("image")
    turned = table.with_columns(A="B", B="A", prediction=pl.col("answer").replace({"A": "B", "B": "A"}))
    by_picture = turned.drop("id").with_columns(image_path=pl.format("/root/LMUData/images/set/{}", "picture")).drop("picture")
    table.write_csv(tmp_path / "M_set.tsv", separator="\t", quote_style="always")
    turned.write_csv(tmp_path / "M_turned.csv", quote_style="always")
    (tmp_path / "M_set.json").write_text(json.dumps(by_picture.to_dicts()))
    shown = []
    for number, (name, key) in enumerate((("M_set.tsv", "id"), ("M_turned.csv", "id"), ("M_set.json", "picture and question"))):
        done = survey(tmp_path / name, home, tmp_path / str(number))
        assert done.returncode == 0, done.stderr
        record = read_survey(tmp_path / str(number))
        assert isinstance(record.model, AnswersConfig) and (record.model.tool, record.model.key) == ("VLMEvalKit", key)
        assert {cell.right_frac for cell in record.shadows.cells} == {1.0}
        shown.append(record)
    assert {record.noise for record in shown} == {"perturb"}
    assert shown[0].model.prompt_sha256 != prompt_hash("letters")  # the tool's own words
    options = without(by_picture.to_dicts()[0], "B") | {"C": "green", "B": "red"}
    words = refusal(write_lines(tmp_path / "odd.jsonl", [options, *by_picture.to_dicts()[1:]]), home, tmp_path / "odd")
    assert "its options are" in words and "green" in words


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.jsonl", "", "holds no answers"),
        ("empty.csv", "", "holds no answers"),
        ("header.tsv", "id\tprediction\n", "holds no answers"),
        ("cut.jsonl", '{"doc_id": 0, "filtered', "the file may have been cut off"),
        ("other.csv", "id,reply\nx,A\n", "has neither filtered_resps (samples of lmms-eval, --log_samples) nor prediction"),
        ("keyless.csv", "index,question,prediction\n0,Which?,A\n", "row 1 has no id, and row 1 not both a question and a picture's path"),
        ("foreign.csv", "id,prediction\nx,A\n", "no row of"),
        ("list.json", '{"results": 1}', "neither a list of rows nor an object with a list of logs"),
        ("words.jsonl", '"A"\n', "row 1, is not an object with keys"),
        ("loglikelihood.jsonl", '{"id": 1, "filtered_resps": [[-1.5, true]]}\n', "has no text in filtered_resps or resps"),
        ("table.xlsx", "PK", "PRED_FORMAT=tsv or json"),
        ("table.pkl", "x", "PRED_FORMAT=tsv or json"),
        ("table.txt", "x", "give one of .jsonl, .json, .csv, .tsv"),
    ],
)
def test_a_log_that_cannot_be_used_is_refused_with_the_remedy(name: str, content: str, words: str, home: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    assert words in refusal(tmp_path / name, home, tmp_path / "out")


def test_options_that_mean_nothing_for_a_log_are_refused(home: Path, log: Path, tmp_path: Path) -> None:
    for option in (("--endpoint", "http://localhost:1/v1"), ("--device", "cpu"), ("--concurrency", "2"), ("--picture-size", "64")):
        assert f"{option[0]}: for a model that is asked" in refusal(log, home, tmp_path / "out", *option)
    assert "--measures ladder" in refusal(log, home, tmp_path / "out", "--measures", "ladder")
    assert "of style letters, not free" in refusal(log, home, tmp_path / "out", "--prompt", "free")
    alone = theodolite("survey", "m", "--answer-log", log, "--world", "shapes", "--out", tmp_path / "out")
    assert alone.returncode == 2 and "--answer-log needs --pairs" in alone.stderr
    assert "is not there or is not a file" in refusal(tmp_path / "none.jsonl", home, tmp_path / "out")


def test_numbers_that_a_table_has_turned_into_decimals_are_still_the_choices(tmp_path: Path) -> None:
    manifest = write_colour_manifest(tmp_path / "pairs", 2)
    row = json.loads(manifest.read_text().splitlines()[0])
    count = {"question": "How many edges?", "choices": ["1", "2"], "answer_before": "1", "answer_after": "2"}
    write_lines(manifest, [{**row, **count}])
    answers = [
        {"picture": row[name], "question": "How many edges?", "A": 1.0, "B": 2.0, "prediction": text}
        for name, text in (("picture", "A"), ("edited", "2"))
    ]
    done = survey(write_lines(tmp_path / "log.jsonl", answers), tmp_path, tmp_path / "out", "--noise", "given")
    assert done.returncode == 0, done.stderr
    rows = pl.read_parquet(tmp_path / "out" / "rows.parquet")
    assert rows.select("answer_before", "answer_after").row(0) == ("1", "2")
