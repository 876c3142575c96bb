"""A manifest exported for other tools: what they load has the pixels, the questions and the ids of a survey."""

from __future__ import annotations

import base64
import csv
import json
import sys
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image

from helpers.colour_pairs import COLOUR_QUESTION, module_of, write_colour_manifest, write_lines
from theodolite.commands.export.export import export_manifest
from theodolite.measurement.pairs.file_pictures import FilePictures
from theodolite.measurement.pairs.items import items_of
from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.records.errors import BadInput
from theodolite.worlds.decoding import strict_pillow
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.read import read_manifest


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_colour_manifest(tmp_path_factory.mktemp("export") / "pairs")


def test_a_data_set_loads_with_its_pictures_and_both_configurations(manifest: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    export_manifest(manifest, "datasets", out)
    items, pairs = (datasets.load_dataset(str(out), name, split="test", cache_dir=str(tmp_path / name)) for name in ("items", "pairs"))
    alone = datasets.load_dataset("parquet", data_dir=str(out / "items"), cache_dir=str(tmp_path / "alone"))
    assert len(alone["train" if "train" in alone else "test"]) == len(items)
    plan = plan_gallery(read_manifest(manifest).gallery, 64, "perturb", PixelLimits())
    assert isinstance(plan.pictures, FilePictures)
    expected = items_of(plan)
    assert [row["id"] for row in items] == [item.id for item in expected] and len(set(items["id"])) == len(items)
    with strict_pillow():
        for row, item in zip(items, expected, strict=True):
            assert np.array_equal(np.asarray(row["image"].convert("RGB")), plan.pictures[item.picture])
            assert (row["question"], tuple(row["choices"]), row["answer"]) == (item.question, item.choices, item.truth)
    assert {"saved_again", "shifted", "brighter", None} == set(items["change"])
    assert len(set(zip(items["picture"], items["question"], strict=True))) == len(items)  # a changed picture is not its file's name
    by_id = {row["id"]: row for row in items.remove_columns("image")}
    assert len(pairs) == len(plan.rows)
    for pair, row in zip(pairs, plan.rows.iter_rows(named=True), strict=True):
        assert by_id[pair["before"]]["question"] == row["question_before"] and by_id[pair["after"]]["answer"] == row["truth_after"]
    header = yaml.safe_load((out / "README.md").read_text().split("---")[1])
    assert [each["config_name"] for each in header["configs"]] == ["items", "pairs"] and header["size_categories"] == ["n<1K"]


def test_pictures_that_plain_pillow_reads_otherwise_are_written_as_their_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[274] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.jpg", exif=turned)
    Image.fromarray(np.dstack([pixels, np.zeros((24, 16), np.uint8)])).rotate(90, expand=True).save(tmp_path / "clear.png")
    Image.fromarray(pixels).save(tmp_path / "plain.jpg")
    common = {"scene": 0, "factor": "x", "from": "a", "to": "b", "question": "Which?", "choices": ["a", "b"], "kind": "matched"}
    rows = [
        {**common, "picture": "plain.jpg", "edited": name, "answer_before": "a", "answer_after": "b"}
        for name in ("turned.jpg", "clear.png")
    ]
    out = tmp_path / "out"
    export_manifest(write_lines(tmp_path / "manifest.jsonl", rows), "datasets", out, noise="given")
    table = pl.read_parquet(out / "items" / "*.parquet")
    written = dict(zip(table["picture"], [each["bytes"] for each in table["image"]], strict=True))
    assert written["plain.jpg"] == (tmp_path / "plain.jpg").read_bytes()
    assert Image.open(BytesIO(written["turned.jpg"])).format == "PNG" and Image.open(BytesIO(written["turned.jpg"])).size == (24, 16)
    assert (np.asarray(Image.open(BytesIO(written["clear.png"]))) == 255).all()  # transparent parts are white


def test_a_task_of_lmms_eval_names_its_functions_and_scores_letters_and_words(manifest: Path, tmp_path: Path) -> None:
    line = export_manifest(manifest, "lmms-eval", tmp_path / "task")
    assert "--tasks theodolite_pairs" in line
    text = (tmp_path / "task" / "theodolite_pairs.yaml").read_text()
    functions = module_of(tmp_path / "task" / "utils.py")
    for name in [part.split()[0] for part in text.split("!function utils.")[1:]]:
        assert callable(getattr(functions, name))
    doc = {"id": "x", "choices": ["blue", "red"], "answer": "red", "prompt_style": "letters"}
    for reply, right in (("B", 1.0), ("(b)", 1.0), ("Red.", 1.0), ("A", 0.0), ("I cannot say", 0.0)):
        assert functions.process_results(doc, [reply])["theodolite_right"]["right"] == right
    assert functions.process_results({**doc, "prompt_style": "free"}, ["B"])["theodolite_right"]["right"] == 0.0


def test_a_table_of_vlmevalkit_has_letters_pictures_and_ids(manifest: Path, tmp_path: Path) -> None:
    export_manifest(manifest, "vlmevalkit", tmp_path / "kit")
    csv.field_size_limit(sys.maxsize)
    with (tmp_path / "kit" / "theodolite_pairs.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert [int(row["index"]) for row in rows] == list(range(len(rows)))
    first = rows[0]
    assert (first["question"], first["A"], first["B"], first["answer"]) == (COLOUR_QUESTION, "blue", "red", "A")
    assert Image.open(BytesIO(base64.b64decode(first["image"]))).size == (32, 32)


def test_the_choices_of_an_export_are_refused_where_they_cannot_be_used(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="VLMEvalKit letters the choices itself"):
        export_manifest(manifest, "vlmevalkit", tmp_path / "kit", prompt="free")
    export_manifest(manifest, "datasets", tmp_path / "set", say=lambda line: None)
    with pytest.raises(BadInput, match="already holds files"):
        export_manifest(manifest, "lmms-eval", tmp_path / "set")
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    many = [f"colour {number}" for number in range(30)] + ["blue", "red"]
    wide = write_lines(manifest.with_name("wide.jsonl"), [{**rows[0], "choices": many}])
    with pytest.raises(BadInput, match="32 choices"):
        export_manifest(wide, "vlmevalkit", tmp_path / "wide")
    assert not (tmp_path / "wide").exists()
    none = {**rows[0], "choices": ["None", "blue", "red"]}
    with pytest.raises(BadInput, match="'None' as a missing value"):
        export_manifest(write_lines(manifest.with_name("none.jsonl"), [none]), "vlmevalkit", tmp_path / "none")
