"""Benchmarks on disk, in small: each layout as its authors give it becomes a manifest of which every row can be used."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.records.errors import BadInput
from theodolite.worlds.benchmarks.formats import LAYOUTS, convert_benchmark
from theodolite.worlds.manifest.read import read_manifest

Rows = list[dict[str, object]]


def content(seed: int, kind: str = "JPEG", size: tuple[int, int] = (24, 16)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content(seed))


def mmvp(source: Path) -> None:
    lines = [
        (1, "Are the wings open or closed?", "(a) Open (b) Closed", "(a)"),
        (2, "Are the wings open or  closed?", "(a) Open (b) Closed", "(b)"),
        (3, "Is a hand (of anybody) visible?", "(a) Yes (b) No", "(b)"),
        (4, "Is a hand (of anybody) visible?", "(a) Yes (b) No", "(a)"),
        (5, "Which side?", "(a) Left (b) Right", "(a)"),
        (6, "Which one?", "(a) Left (b) Right", "(b)"),
    ]
    with (source / "Questions.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows([("Index", "Question", "Options", "Correct Answer"), *lines])
    for number in range(1, 7):
        put(source / "MMVP Images" / f"{number}.jpg", number)


GROUPS: Rows = [
    {
        "Index": 7, "Question_0": "Is it wet?", "Question_1": "Is it dry?", "Question_Type": "yes_no", "Source": "Flickr",
        "Image_0_Question_0": "Yes", "Image_1_Question_0": "No", "Image_0_Question_1": "No", "Image_1_Question_1": "Yes",
    },
    {
        "Index": 9, "Question_0": "What is it? Option: A: cat; B: dog;", "Question_1": "What not? Option: A: dog; B: cat;",
        "Question_Type": "multiple_choice", "Source": "DOCCI",
        "Image_0_Question_0": "A", "Image_1_Question_0": "B", "Image_0_Question_1": "A", "Image_1_Question_1": "B",
    },
]  # fmt: skip


def naturalbench(source: Path) -> None:
    images = {f"Image_{side}": [{"bytes": content(10 * row + side, "PNG"), "path": None} for row in range(2)] for side in (0, 1)}
    (source / "data").mkdir()
    pl.DataFrame(GROUPS).with_columns(**{name: pl.Series(held) for name, held in images.items()}).write_parquet(
        source / "data" / "train-00000-of-00001.parquet"
    )


def naturalbench_json(source: Path) -> None:
    groups = [group | {f"Image_{side}": f"images/{group['Index']}_{side}.jpg" for side in (0, 1)} for group in GROUPS]
    (source / "groups.json").write_text(json.dumps(groups))
    for group in groups:
        for side in (0, 1):
            put(source / f"images/{group['Index']}_{side}.jpg", int(str(group["Index"])) + 100 * side)


def coco_counterfactuals(source: Path) -> None:
    captions = [("A cat sits on a mat", "A dog sits on a mat"), ("A red bus", "A red train")]
    (source / "data" / "images").mkdir(parents=True)
    lines = []
    for number, (one, other) in enumerate(captions):
        names = {f"image_{side}": f"236308_{number}_img_{side}" for side in (0, 1)}
        lines.append(json.dumps({"id": f"236308_{number}", "caption_0": one, "caption_1": other, **names}))
        for side, name in enumerate(names.values()):
            put(source / "data" / "images" / f"{name}.jpg", 10 * number + side)
    (source / "data" / "examples.jsonl").write_text("\n".join(lines) + "\n")


def whatsup(source: Path) -> None:
    for name, folder, relations, ending in (
        ("controlled_images_dataset.json", "controlled_images", ("left_of", "right_of", "on", "under"), "jpeg"),
        ("controlled_clevr_dataset.json", "controlled_clevr", ("left_of", "right_of", "in-front_of", "behind"), "jpeg"),
    ):
        entries = []
        for relation in relations:
            captions = [f"A mug {other.replace('_', ' ')} a table" for other in (relation, *(one for one in relations if one != relation))]
            file = f"mug_{relation}_table.{ending}"
            entries.append({"image_path": f"data/{folder}/{file}", "caption_options": captions})
            put(source / folder / file, len(entries) + len(folder))
        (source / name).write_text(json.dumps(entries))


# Layout, its writer, and what the manifest then says of each row: scene, from, to, form.
MADE: dict[str, tuple[str, Callable[[Path], None], list[tuple[object, ...]]]] = {
    "mmvp": ("mmvp", mmvp, [(1, "Open", "Closed", "open"), (2, "No", "Yes", "yes_no")]),
    "naturalbench": (
        "naturalbench",
        naturalbench,
        [(7, "Yes", "No", "yes_no"), (7, "No", "Yes", "yes_no"), (9, "A", "B", "open"), (9, "A", "B", "open")],
    ),
    "naturalbench as json": (
        "naturalbench",
        naturalbench_json,
        [(7, "Yes", "No", "yes_no"), (7, "No", "Yes", "yes_no"), (9, "A", "B", "open"), (9, "A", "B", "open")],
    ),
    "coco_counterfactuals": ("coco_counterfactuals", coco_counterfactuals, [(0, "cat", "dog", "open"), (0, "bus", "train", "open")]),
    "whatsup": (
        "whatsup",
        whatsup,
        [(0, "left", "right", "open"), (0, "on", "under", "open"), (1, "left", "right", "open"), (1, "in-front", "behind", "open")],
    ),
}


def made(tmp_path: Path, what: str) -> tuple[Path, tuple[str, ...]]:
    layout, write, _ = MADE[what]
    (tmp_path / "source").mkdir()
    write(tmp_path / "source")
    converted = convert_benchmark(layout, tmp_path / "source", tmp_path / "out")
    return converted.manifest, converted.skipped


@pytest.mark.parametrize("what", MADE)
def test_every_row_of_a_layout_can_be_used(tmp_path: Path, what: str) -> None:
    path, _ = made(tmp_path, what)
    found = read_manifest(path)
    assert not found.faults
    assert found.gallery.kind == "matched"
    assert found.gallery.table.select("scene", "value_before", "value_after", "form").rows() == MADE[what][2]
    plan = plan_gallery(read_manifest(path).gallery, 24)
    assert set(plan.rows["kind"]) == {"intervention"}
    assert (plan.rows["truth_before"] != plan.rows["truth_after"]).all()


def test_mmvp_asks_both_pictures_of_a_pair_and_leaves_out_pairs_that_ask_different_things(tmp_path: Path) -> None:
    path, skipped = made(tmp_path, "mmvp")
    assert [line.partition(": ")[2] for line in skipped] == ["the two questions or their options differ"]
    assert "rows 5 and 6" in skipped[0]
    first = read_manifest(path).gallery.table.row(0, named=True)
    assert first["question_before"] == "Are the wings open or closed?"
    assert first["choices"] == ["Open", "Closed"]
    assert (first["truth_before"], first["truth_after"]) == ("Open", "Closed")
    for side, number in (("before", 1), ("after", 2)):
        assert (path.parent / first[f"picture_{side}"]).read_bytes() == content(number)


def test_naturalbench_asks_both_questions_of_both_pictures(tmp_path: Path) -> None:
    table = read_manifest(made(tmp_path, "naturalbench")[0]).gallery.table
    wet, dry = table.filter(pl.col("scene") == 7).rows(named=True)
    assert (wet["question_before"], wet["truth_before"], wet["truth_after"]) == ("Is it wet?", "Yes", "No")
    assert (dry["question_before"], dry["truth_before"], dry["truth_after"]) == ("Is it dry?", "No", "Yes")
    assert (wet["picture_before"], wet["picture_after"]) == (dry["picture_before"], dry["picture_after"])


def test_captions_are_choices_whose_order_says_nothing(tmp_path: Path) -> None:
    table = read_manifest(made(tmp_path, "whatsup")[0]).gallery.table
    assert (table["choices"].list.len() == 4).all()
    assert set(table["truth_before"]) == {"A mug left of a table", "A mug on a table", "A mug in-front of a table"}
    places = {row["choices"].index(row["truth_before"]) for row in table.rows(named=True)}
    assert len(places) > 1


def test_what_is_missing_in_a_benchmark_is_told(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    whatsup(tmp_path / "source")
    (tmp_path / "source" / "controlled_images" / "mug_on_table.jpeg").unlink()
    entries = json.loads((tmp_path / "source" / "controlled_clevr_dataset.json").read_text())
    (tmp_path / "source" / "controlled_clevr_dataset.json").write_text(json.dumps([*entries[:3], {"image_path": 3}]))
    converted = convert_benchmark("whatsup", tmp_path / "source", tmp_path / "out")
    assert [line.split(": ", 1)[1] for line in converted.skipped] == ["lacks image_path or caption_options", "no picture of behind"]
    assert [fault.kind for fault in read_manifest(converted.manifest).faults] == ["missing picture"]
    assert (converted.num_rows, len(converted.lines(1))) == (3, 2)


def test_a_folder_of_another_layout_is_refused(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        with pytest.raises(BadInput, match=r"is not a folder; give the folder of|holds n"):
            convert_benchmark(layout, tmp_path / "none", tmp_path / "out")
        with pytest.raises(BadInput, match=r"holds none of|holds no "):
            convert_benchmark(layout, tmp_path, tmp_path / "out")
    with pytest.raises(BadInput, match=r"no layout is called 'vqa'; there is mmvp, naturalbench, coco_counterfactuals, whatsup"):
        convert_benchmark("vqa", tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_in_a_benchmark_reach_no_file_outside_of_it(tmp_path: Path) -> None:
    (tmp_path / "source" / "images").mkdir(parents=True)
    put(tmp_path / "secret.jpg", 1)
    example = {"id": "1", "caption_0": "a cat", "caption_1": "a dog", "image_0": "../../secret", "image_1": "/etc/passwd"}
    (tmp_path / "source" / "examples.jsonl").write_text(json.dumps(example))
    converted = convert_benchmark("coco_counterfactuals", tmp_path / "source", tmp_path / "out")
    assert [path.name for path in converted.manifest.parent.iterdir()] == ["manifest.jsonl"]
    group = GROUPS[0] | {"Image_0": "../secret.jpg", "Image_1": "../secret.jpg"}
    (tmp_path / "source" / "groups.json").write_text(json.dumps([group, group | {"Index": "../../x"}]))
    with pytest.raises(BadInput, match=r"(?s)gave no pair.*neither a picture nor the path of one.*cannot be part of a file name"):
        convert_benchmark("naturalbench", tmp_path / "source", tmp_path / "other")


def theodolite(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "theodolite", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_commands_convert_and_check(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    mmvp(tmp_path / "source")
    (tmp_path / "source" / "MMVP Images" / "4.jpg").unlink()
    done = theodolite("manifest", "convert", "mmvp", tmp_path / "source", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "2 rows; check them with" in done.stdout
    checked = theodolite("manifest", "check", tmp_path / "out" / "manifest.jsonl")
    assert checked.returncode == 1, checked.stderr
    assert "row 2 (id mmvp-2): picture pictures/4.jpg does not exist; add the file" in checked.stdout
    assert "1 rows can be used: 1 scenes, 2 pictures, matched pairs; 1 rows are left out" in checked.stdout
    wrong = theodolite("manifest", "check", tmp_path / "none.jsonl")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
