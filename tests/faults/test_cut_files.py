"""Files that are cut off at any byte of their last block: refused by name or made again, never read as other numbers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from safetensors.torch import save_file

from helpers.cut_files import cut, refused_or_same
from helpers.grid_runs import tiny_run
from helpers.study_records import grid_runs, study, write
from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.asking.answer import Answer, Question
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.asking.parts import QuestionPart, StoredAnswers
from theodolite.blind_pairs.vector_store import VectorStore
from theodolite.measurement.internals.stored import StoredMeasures
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.result import SurveyResult, load_survey
from theodolite.measurement.survey.session import survey_model
from theodolite.models.cached_features import DiskFeatureCache
from theodolite.models.export import export_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput
from theodolite.records.study import read_runs, read_study
from theodolite.studies.engine.execute import RunResult, execute
from theodolite.studies.engine.grid import Ledger
from theodolite.studies.engine.kept_rows import kept_rows_path, read_kept_rows
from theodolite.training.checkpoint import WEIGHTS, is_whole, load_trained, mark_whole, newest_whole


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a survey with a measure of the inside; of the three kinds of tables, that of files' pictures is made up."""
    folder = tmp_path_factory.mktemp("cut") / "survey"
    options = SurveyOptions(policy="shape,row", num_scenes=4, batch=16, measures=("likeness",))
    survey_model(tiny_vlm(), WORLD, options).save(folder)
    pl.DataFrame({"picture": range(9), "path": [f"{number}.png" for number in range(9)]}).write_parquet(folder / "pictures.parquet")
    return folder


def surveys_equal(one: SurveyResult, other: SurveyResult) -> bool:
    """Whether all is equal; pictures of examples may be missing."""
    assert one.picture_table is not None and other.picture_table is not None and one.thumbnails is not None
    for mine, its in ((one.rows, other.rows), (one.picture_table, other.picture_table), (one.thumbnails, other.thumbnails)):
        assert_frame_equal(mine, its)
    pictures = all(np.array_equal(picture, other.pictures[name]) for name, picture in one.pictures.items())
    return pictures and (one.record, one.run) == (other.record, other.run)


@pytest.mark.parametrize("name", ["survey.json", "run.json", "rows.parquet", "thumbnails.parquet", "pictures.parquet", "*.png"])
def test_a_cut_file_of_a_survey_is_refused_by_name_or_is_whole(survey: Path, name: str, every: bool) -> None:
    path, whole = next(survey.rglob(name)), load_survey(survey)
    refused, read = refused_or_same(path, lambda: load_survey(survey), lambda value: surveys_equal(value, whole), every)
    assert refused > 10
    # The last byte of JSON is a line end. The last of a PNG are checksums and an empty block; with fewer than 8 it is a missing picture.
    assert read <= (1 if name.endswith(".json") else 32 if name == "*.png" else 0)


@pytest.mark.parametrize("name", ["study.json", "runs.jsonl"])
def test_a_cut_file_of_a_study_is_refused_by_name_or_is_whole(tmp_path: Path, name: str, every: bool) -> None:
    folder = write(tmp_path / "study", study(), grid_runs()[:3])

    def read() -> Any:
        return read_study(folder), list(read_runs(folder).values())

    record, runs = read()

    def same(value: Any) -> bool:
        # Cut between two lines it holds fewer runs; the study makes the others again.
        return bool(value[0] == record and value[1] == runs[: len(value[1])])

    refused, as_whole = refused_or_same(folder / name, read, same, every)
    assert refused > 10 and 1 <= as_whole <= 2 * len(runs)


@pytest.fixture(scope="module")
def run() -> RunResult:
    return execute(tiny_run())


def test_cut_rows_and_times_of_a_study_are_refused_by_name(run: RunResult, tmp_path: Path, every: bool) -> None:
    ledger = Ledger.of(tmp_path)
    ledger.land(tiny_run(), run, {})
    key = run.line.key
    whole = read_kept_rows(tmp_path, key)
    assert whole is not None
    path = kept_rows_path(tmp_path, key)
    assert refused_or_same(path, lambda: read_kept_rows(tmp_path, key), lambda rows: bool(rows.equals(whole)), every)[1] == 0
    assert refused_or_same(tmp_path / "run.json", lambda: Ledger.of(tmp_path), lambda other: other.seconds == ledger.seconds, every)[1] == 1


PICTURES = WORLD.render(WORLD.sample(3, np.random.default_rng(0)), 32)
QUESTIONS = tuple(Question(number % 3, f"which {number}?", ("red", "blue")) for number in range(40))


def test_a_cut_part_of_answers_is_asked_again(tmp_path: Path, every: bool) -> None:
    part, stored = QuestionPart.of(PICTURES, QUESTIONS), StoredAnswers(tmp_path, "model")
    rng = np.random.default_rng(1)
    answers = [Answer(rng.dirichlet([1, 1]), 0.1, -rng.random(2), np.array([2, 2])) for _ in QUESTIONS]
    stored.write(part, answers)
    [path] = tmp_path.glob("*.parquet")
    for length in cut(path, every):
        assert stored.read(part) is None, length
    again = stored.read(part)
    assert again is not None and all(
        np.array_equal(one.probabilities, other.probabilities) for one, other in zip(again, answers, strict=True)
    )


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_cut_measure_is_computed_again(survey: Path, tmp_path: Path, suffix: str, every: bool) -> None:
    inside = load_survey(survey).record.inside
    assert inside is not None
    stored, shown = StoredMeasures(tmp_path, "0" * 64), {"pictures/one.png": PICTURES[0]}
    stored.write("likeness", inside.likeness, shown)
    whole = stored.read(["likeness"])["likeness"]
    assert whole[0] == inside.likeness
    [path] = tmp_path.glob(f"*{suffix}")
    again = [stored.read(["likeness"]) for _ in cut(path, every)]
    assert sum(map(bool, again)) == 0, "a measure without its last byte was taken"


def cache_with(path: Path, number: int) -> dict[str, Any]:
    """A file of answers, which is closed; and its content."""
    cache = ResponseCache(path)
    entries = {f"{key:064x}": {"text": f"answer {key}", "top": {"A": -0.1 * key}, "model": "m"} for key in range(number)}
    for key, entry in entries.items():
        cache.put(key, entry)
    cache.remember_server("server", [["m", "f"]])
    cache.close()
    return entries


def test_a_cut_cache_of_answers_gives_no_other_answer(tmp_path: Path, every: bool) -> None:
    path = tmp_path / "answers.sqlite"
    entries = cache_with(path, 60)

    def read() -> dict[str, Any]:
        cache = ResponseCache(path)
        try:
            cache.recall_server("server")
            return cache.find(list(entries))
        finally:
            cache.close()

    assert read() == entries
    refused, _ = refused_or_same(path, read, lambda answers: all(entries[key] == answer for key, answer in answers.items()), every)
    assert refused > 10


def test_a_cut_cache_of_features_gives_no_other_features(tmp_path: Path, every: bool) -> None:
    path = tmp_path / "features.sqlite"
    features = {bytes([number] * 32): torch.full((40,), float(number + 1)) for number in range(30)}
    DiskFeatureCache(path).put(features)
    for extra in ("-wal", "-shm"):
        assert not path.with_name(path.name + extra).exists()

    def same(read: dict[bytes, torch.Tensor]) -> bool:
        return all(torch.equal(features[key], value) for key, value in read.items())

    refused, _ = refused_or_same(path, lambda: DiskFeatureCache(path).get(list(features)), same, every)
    assert refused > 10


@pytest.mark.parametrize("name", ["vectors.npy", "pictures.txt"])
def test_cut_vectors_are_embedded_again(tmp_path: Path, name: str, every: bool) -> None:
    vectors, keys = np.arange(48, dtype=np.float32).reshape(12, 4), [f"{number:064x}" for number in range(12)]
    store = VectorStore(tmp_path / "store", 4)
    store.add(keys, vectors)
    store.close()
    for length in cut(tmp_path / "store" / name, every):
        copy = shutil.copytree(tmp_path / "store", tmp_path / "copy", dirs_exist_ok=True)
        opened = VectorStore(copy, 4)
        assert len(opened) < 12 and np.array_equal(opened.vectors(), vectors[: len(opened)]), length
        opened.add(keys[len(opened) :], vectors[len(opened) :])
        assert np.array_equal(opened.vectors(), vectors), length
        opened.close()


def test_a_checkpoint_with_any_file_cut_is_not_complete_and_the_one_before_is_taken(tmp_path: Path, every: bool) -> None:
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        save_file({"weight": torch.full((100,), float(step))}, folder / WEIGHTS)
        torch.save({"state": torch.ones(9)}, folder / "optimizer.pt")
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        mark_whole(folder)
    assert newest_whole(tmp_path) == tmp_path / "checkpoint-4"
    for name in (WEIGHTS, "optimizer.pt", "trainer_state.json"):
        for length in cut(tmp_path / "checkpoint-4" / name, every):
            assert newest_whole(tmp_path) == tmp_path / "checkpoint-2", (name, length)
    whole = (tmp_path / "checkpoint-4" / "whole").read_text()
    for length in cut(tmp_path / "checkpoint-4" / "whole", every):
        # Without its line end it is the same; an empty one is that of an older version.
        assert is_whole(tmp_path / "checkpoint-4") == (length in (0, len(whole) - 1)), length


def test_cut_weights_of_a_checkpoint_of_an_older_version_are_refused_by_name(tmp_path: Path, every: bool) -> None:
    module = torch.nn.Linear(5, 5)
    save_file(module.state_dict(), tmp_path / WEIGHTS)
    (tmp_path / "whole").touch()
    assert is_whole(tmp_path)
    refused, _ = refused_or_same(tmp_path / WEIGHTS, lambda: load_trained(module, tmp_path), lambda value: False, every)
    assert refused > 10


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "processor_config.json", "tokenizer_config.json"])
def test_a_cut_file_of_a_model_is_refused(tmp_path: Path, name: str) -> None:
    export_vlm(*tiny_vlm(), tmp_path / "model")
    path = tmp_path / "model" / name
    size, whole = path.stat().st_size, path.read_bytes()
    for length in (0, size // 2, size - 2):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match=str(tmp_path / "model")):
            load_vlm(tmp_path / "model")
