"""The command line as people meet it: help, bad input, interruption. Real processes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

from helpers.command_line import theodolite
from theodolite.cli import app, main
from theodolite.cli.names import RECIPES
from theodolite.training import recipes


@pytest.mark.parametrize("command", ["tour", "coverage", "advise", "survey", "train", "compare", "report", "world"])
def test_help_says_what_a_command_does(command: str) -> None:
    whole, one = theodolite("--help"), theodolite(command, "--help")
    assert whole.returncode == one.returncode == 0
    assert command in whole.stdout
    assert "Usage:" in one.stdout


def test_help_says_what_a_default_comes_from() -> None:
    command = [sys.executable, "-m", "theodolite", "survey", "--help"]
    wide = {**os.environ, "COLUMNS": "200", "TERMINAL_WIDTH": "200"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=wide)
    for words in ("(default: as trained, else all open questions)", "(default: as trained, else 0)", "(default: 200)", "(default: 0)"):
        assert words in done.stdout


def names_and_groups(group: Any, *path: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        yield (*path, name)
        if hasattr(command, "commands"):
            yield from names_and_groups(command, *path, name)


@pytest.mark.parametrize("width", [60, 80])
def test_no_help_is_cut_off_or_wider_than_asked(width: int) -> None:
    for path in [(), *names_and_groups(get_command(app))]:
        shown = CliRunner().invoke(app, [*path, "-h"], terminal_width=width)
        assert shown.exit_code == 0 and "Usage:" in shown.output
        assert not re.search(r"\w\.\.\.$|\u2026", shown.output, re.MULTILINE), path
        assert max(map(len, shown.output.splitlines())) <= width, path


def test_the_version_is_that_of_the_package() -> None:
    done = theodolite("--version")
    assert done.returncode == 0 and done.stdout == f"theodolite {version('theodolite')}\n"


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
def test_tables_are_as_wide_as_columns_says_and_whole(columns: int) -> None:
    done = theodolite("coverage", "easy_vqa", "--strength", "0.9", "--ask", "shape,colour:odd", columns=columns)
    assert done.returncode == 0, done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if "distinguished" not in line and "shadow could" not in line) <= columns
    for word in ("factor", "coverage", "pressure", "unasked", "column"):
        assert word in done.stdout
    assert "\u2026" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("coverage", "shpes", "--ask", "shape"), ("shpes", "shapes, easy_vqa")),
        (("coverage", "shapes", "--ask", "shap"), ("shap", "shape, colour")),
        (("coverage", "shapes", "--ask", "shape=oval"), ("oval", "round, square")),
        (("coverage", "shapes", "--ask", "shape:evn"), ("evn", "all, agree, odd")),
        (("coverage", "shapes", "--ask", "sheen"), ("sheen", "no query can name")),
        (("coverage", "shapes", "--ask", ","), ("asks nothing",)),
        (("coverage", "shapes", "--ask", "shape*often"), ("often", "give a number")),
        (("coverage", "shapes", "--ask", "shape", "--strength", "1.5"), ("1.5", "0 to 1")),
        (("coverage", "shapes"), ("--ask",)),
        (("coverage", "shapes", "--ask", "shape", "--factors", "shape"), ("--factors", "leave it out")),
        (("coverage", "none.parquet"), ("none.parquet is no file",)),
        (("coverage", "none.parquet", "--ask", "shape"), ("--ask", "leave them out")),
        (("coverage", "nothere"), ("no world is called 'nothere'",)),  # before --ask is missed
        (("advise", "shaps"), ("did you mean shapes?",)),  # before --budget is
        (("world", "shpes"), ("did you mean shapes?",)),  # before --out is
        (("manifest", "convert", "mmvpp"), ("did you mean mmvp?",)),
        (("train", "tiny-lavr"), ("did you mean tiny-laver?",)),
        (("survey", "x", "--world", "shpes"), ("did you mean shapes?",)),
        (("survey", "./taken/nowhere", "--out", "x", "--world", "shapes"), ("there is no such folder",)),
        (("survey", "takn/model", "--out", "x", "--world", "shapes"), ("takn/model: there is no such folder",)),
        (("advise", "moon", "--budget", "3"), ("moon", "shapes, easy_vqa")),
        (("advise", "shapes", "--budget", "3", "--about", "sheen2"), ("sheen2",)),
        (("compare", "nowhere", "elsewhere"), ("nowhere", "survey.json")),
        (("survey", "nowhere", "--out", "x", "--world", "shapes", "--measures", "lader"), ("lader", "ladder, likeness")),
        (("survey", "nowhere", "--out", "x", "--world", "shapes", "--measures", ","), ("no measure is named",)),
        (("survey", "nowhere", "--out", "x", "--world", "shapes", "--inside-scenes", "9"), ("--inside-scenes", "leave it out")),
        (("survey", "nowhere", "--out", "x", "--world", "shapes", "--measures", "gap", "--sentences", "y"), ("--sentences", "words")),
        (("survey", "nowhere", "--out", "x", "--world", "shapes", "--measures", "words", "--sentences", "y"), ("y cannot be read",)),
        (("train", "laver-clip", "--ask", "shape", "--data", "a=b.json:c"), ("leave --ask and --strength out",)),
        (("train", "tiny-laver", "--ask", "shap"), ("shap", "shape, colour")),
        (("tour", "--world", "moon"), ("moon", "shapes, easy_vqa")),
        (("survey", "nowhere", "--out", "x"), ("--world", "--pairs")),
        (("world", "shapes", "--out", "x", "--pairs", "--pictures", "3"), ("--pictures", "leave")),
        (("train", "smol", "--set", "steps=-5"), ("steps=-5", "greater")),
        (("survey", "nowhere", "--out", "x", "--world", "shapes"), ("nowhere",)),
        (("survey", "nowhere", "--out", "x", "--pairs", "p", "--ask", "shape"), ("--ask:", "leave them out")),
        (("survey", "nowhere", "--out", "x", "--pairs", "p", "--scenes", "200", "--seed", "0"), ("--scenes, --seed:", "leave them out")),
        (("survey", "nowhere", "--out", "x", "--pairs", "p"), ("p",)),  # before any model is looked for
        (("survey", "nowhere", "--out", "taken/file/x", "--world", "shapes"), ("taken/file is a file",)),
        (("world", "shapes", "--out", ".", "--overwrite"), ("current directory",)),
        (("report", "nowhere", "--out", "page.html"), ("nowhere", "survey.json")),
        (("world", "shapes", "--out", "taken"), ("taken", "--overwrite")),
    ],
)
def test_bad_input_ends_with_status_2_and_a_reason(
    tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["theodolite", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    # `train` says what it starts before anything heavy is loaded, which checks of other arguments need; `survey` says where it runs.
    assert all("loading PyTorch" in line or line.endswith("on cpu in float32") for line in said.out.splitlines())
    assert "huggingface.co" not in said.err and "Repo id" not in said.err
    for word in words:
        assert word in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_bad_input_shows_no_traceback_and_a_bad_option_lists_the_right_ones() -> None:
    for arguments in (("coverage", "shpes", "--ask", "shape"), ("survey", "m", "--world", "shapes", "--out", "x", "--dtype", "int3")):
        done = theodolite(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
    assert "bfloat16" in done.stderr


def test_a_world_on_disk_holds_pictures_questions_and_pairs(tmp_path: Path) -> None:
    done = theodolite("world", "shapes", "--out", tmp_path / "w", "--pictures", "6", "--scenes", "3", "--size", "48", "--strength", "0.9")
    assert done.returncode == 0, done.stderr
    scenes, questions = (pl.read_parquet(tmp_path / "w" / f"{name}.parquet") for name in ("scenes", "questions"))
    pairs = pl.read_ndjson(tmp_path / "w" / "manifest.jsonl", infer_schema_length=None)
    assert len(scenes) == 6
    assert len(questions) == 6 * 9  # every open question of every picture
    assert set(pairs["factor"]) == {*scenes.columns} - {"picture", "nuisance"} | {""}
    for name in (*scenes["picture"], *pairs["picture"], *pairs["edited"].drop_nulls()):
        with Image.open(tmp_path / "w" / name) as picture:
            assert picture.size == (48, 48)


def test_ctrl_c_leaves_no_half_written_folder(tmp_path: Path) -> None:
    code = """
import os, signal, sys
import polars as pl
from theodolite import cli
def interrupt(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGINT)
pl.DataFrame.write_parquet = interrupt  # Ctrl-C arrives when pictures are written and tables are not
sys.argv = ["theodolite", "world", "shapes", "--out", "w", "--pictures", "4", "--scenes", "2"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 130, (done.returncode, done.stderr)
    assert done.stderr.strip() == "theodolite: stopped by SIGINT; no record was left half-written"
    assert list(tmp_path.iterdir()) == []


def test_coverage_prints_json_that_parses_and_a_table_that_reads() -> None:
    as_json = theodolite("coverage", "easy_vqa", "--strength", "0.9", "--ask", "shape,colour:odd", "--json")
    found = json.loads(as_json.stdout)
    assert set(found["coverage"]) == {"shape", "colour", "size", "column", "row"}
    table = theodolite("coverage", "easy_vqa", "--strength", "0.9", "--ask", "shape,colour:odd")
    assert f"{found['coverage']['shape']:.4f}" in table.stdout
    assert "unasked" in table.stdout


def test_the_recipes_that_are_known_without_pytorch_are_those_of_the_trainer() -> None:
    assert tuple(recipes.RECIPES) == RECIPES
