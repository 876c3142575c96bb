"""Sources of examples: LLaVA JSON, Hugging Face data sets whole and streamed, worlds; and the order in which they are visited."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import BatchSamplerShard, IterableDatasetShard
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader

from helpers.tiny_llava import examples
from theodolite.data.conversations import BadConversation, conversation_of
from theodolite.data.epochs import EpochDataset, EpochExample, EpochSampler, FixedOrder, Stream, StreamedEpochs, times_before
from theodolite.data.examples import training_order
from theodolite.data.sources import LlavaJson, Malformed, TrainingExample, WorldExamples
from theodolite.data.tables import as_source, from_datasets
from theodolite.records.errors import BadInput

IMAGE = {"type": "image"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def says(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [text(part) if isinstance(part, str) else part for part in parts]}


def png(seed: int = 0) -> bytes:
    written = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(written, "PNG")
    return written.getvalue()


ASKED = (says("user", IMAGE, "what colour"), says("assistant", "red"))
FORMS = {
    "messages": [{"role": "user", "content": "<image>\nwhat colour"}, {"role": "assistant", "content": "red"}],
    "parts": [
        {"role": "user", "content": [{"type": "image", "text": None}, {"type": "text", "text": "what colour"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "red"}]},
    ],
    "llava": [{"from": "human", "value": "<image>\nwhat colour"}, {"from": "gpt", "value": "red"}],
    "finevision": [{"user": "what colour", "assistant": "red"}],
    "columns": {"role": ["user", "assistant"], "content": ["<image>what colour", "red"]},
    "json": '[{"from": "human", "value": "<image>\\nwhat colour"}, {"from": "gpt", "value": "red"}]',
}


@pytest.mark.parametrize("form", FORMS)
def test_every_known_form_of_turns_gives_the_same_conversation(form: str) -> None:
    assert conversation_of(FORMS[form], 1) == ASKED


def test_pictures_stand_where_the_text_has_them_and_else_before_the_first_question() -> None:
    turns = [
        {"from": "system", "value": "be brief"},
        {"from": "human", "value": "is <image>\nlike\n\n<image>?"},
        {"from": "gpt", "value": "no"},
    ]
    assert conversation_of(turns, 2)[1] == says("user", "is ", IMAGE, "like", IMAGE, "?")
    turns[1]["value"] = "are they alike?"
    assert conversation_of(turns, 2)[:2] == (says("system", "be brief"), says("user", IMAGE, IMAGE, "are they alike?"))
    assert conversation_of(turns, 0)[1] == says("user", "are they alike?")


@pytest.mark.parametrize(
    ("turns", "message"),
    [
        ([], "expected a list of turns"),
        ("{", "not JSON"),
        ([{"q": "a", "r": "b"}], "a turn has the fields q, r; expected role and content, from and value, or user and assistant"),
        ([{"from": "robot", "value": "x"}], "has the role 'robot'; expected one of system, human"),
        ([{"role": "user", "content": None}], "the user's turn holds None"),
        ([{"role": "user", "content": [{"type": "video"}]}], "expected type image, or type text"),
        ([{"role": "user", "content": [{"type": "image", "index": 1}, {"type": "image", "index": 0}]}], r"in the order \[1, 0\]"),
        ({"role": ["user"], "content": ["a", "b"]}, "lists of different lengths"),
        ([{"role": "system", "content": "a"}], "no turn of the user to place them in"),
    ],
)
def test_what_is_no_conversation_is_named(turns: Any, message: str) -> None:
    with pytest.raises(BadConversation, match=message):
        conversation_of(turns, 1)


LLAVA = [
    {"id": "one", "image": "a/1.png", "conversations": FORMS["llava"]},
    {"image": ["a/1.png", "a/2.png"], "conversations": [{"from": "human", "value": "<image><image>"}, {"from": "gpt", "value": "é"}]},
    {"id": 3, "conversations": [{"from": "human", "value": "what"}, {"from": "gpt", "value": "yes"}]},
    {"id": "bad", "image": "a/1.png"},
    {"id": "worse", "image": 5, "conversations": FORMS["llava"]},
]


@pytest.mark.parametrize("name", ["data.json", "data.jsonl"])
def test_llava_json_gives_examples_with_pictures_below_the_folder(tmp_path: Path, name: str) -> None:
    lines = "\n".join(json.dumps(record) for record in LLAVA)
    (tmp_path / name).write_text(lines if name.endswith("l") else json.dumps(LLAVA))
    source = LlavaJson(tmp_path / name, tmp_path)
    one, two, three, bad, worse = [source[index] for index in range(len(source))]
    assert isinstance(one, TrainingExample) and isinstance(two, TrainingExample) and isinstance(three, TrainingExample)
    assert (one.key, one.pictures, one.conversations) == ("one", (tmp_path / "a/1.png",), (ASKED,))
    assert two.pictures == (tmp_path / "a/1.png", tmp_path / "a/2.png")
    assert two.conversations == ((says("user", IMAGE, IMAGE), says("assistant", "é")),)
    assert (three.key, three.pictures) == ("3", ())
    assert isinstance(bad, Malformed) and bad.key == "bad" and "the conversation is None" in bad.problem
    assert isinstance(worse, Malformed) and worse.key == "worse" and "expected a path" in worse.problem
    with pytest.raises(IndexError, match="there is no record 5"):
        source[5]


def test_llava_json_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"id": 1}')
    with pytest.raises(BadInput, match="holds no records; expected a list of records"):
        LlavaJson(tmp_path / "data.json", tmp_path)
    (tmp_path / "data.json").write_text('{"id": 1}\n{"id": 2}')
    with pytest.raises(BadInput, match=r"one record per line must end in \.jsonl"):
        LlavaJson(tmp_path / "data.json", tmp_path)
    with pytest.raises(BadInput, match="cannot be read"):
        LlavaJson(tmp_path / "nothing.json", tmp_path)
    with pytest.raises(BadInput, match="there is no folder"):
        LlavaJson(tmp_path / "data.json", tmp_path / "nothing")


@pytest.mark.parametrize("name", ["../outside.png", "a/../../outside.png", "/etc/hostname", "{folder}x/1.png"])
def test_a_picture_outside_its_folder_is_not_opened(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    name = name.format(folder=folder)
    (tmp_path / "data.json").write_text(json.dumps([{"id": "a", "image": name, "conversations": FORMS["llava"]}]))
    malformed = LlavaJson(tmp_path / "data.json", folder)[0]
    assert isinstance(malformed, Malformed) and "outside the folder of the pictures" in malformed.problem
    good = {"image": "a/1.png", "conversations": FORMS["llava"]}
    rows = datasets.Dataset.from_list([good, {"image": name, "conversations": FORMS["llava"]}])
    one, other = (from_datasets(rows, picture_folder=folder)[at] for at in range(2))
    assert isinstance(one, TrainingExample) and isinstance(other, Malformed) and "outside the folder" in other.problem
    free = from_datasets(rows)[1]
    assert isinstance(free, TrainingExample) and free.pictures == (Path(name),), "without a folder paths are taken as they are"


def test_paths_within_the_folder_and_links_in_it_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/coco").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    for name in ("coco/1.png", "a/../coco/1.png", str(tmp_path / "pictures/coco/1.png")):
        (tmp_path / "data.json").write_text(json.dumps([{"image": name, "conversations": FORMS["llava"]}]))
        example = LlavaJson(tmp_path / "data.json", "pictures")[0]
        assert isinstance(example, TrainingExample) and example.pictures == (Path("pictures") / name,)


def test_a_record_without_an_id_is_named_by_its_content_wherever_it_stands(tmp_path: Path) -> None:
    keys = []
    for records in (LLAVA[:2], LLAVA[1:]):
        (tmp_path / "data.json").write_text(json.dumps(records))
        source = LlavaJson(tmp_path / "data.json", tmp_path)
        keys.append([source[index].key for index in range(len(source))])
    assert keys[0][1] == keys[1][0]
    rows = [{"images": [png(seed)], "texts": FORMS["finevision"]} for seed in (0, 1)]
    found = [from_datasets(datasets.Dataset.from_list(part))[0].key for part in (rows, rows[1:], rows)]
    assert found[0] == found[2] != found[1]


def table(num_rows: int = 12, **more: Any) -> datasets.Dataset:
    """Rows like FineVision's: pictures in a typed column, question and answer pairs, and what is of no use here."""
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "texts": datasets.List({"user": datasets.Value("string"), "assistant": datasets.Value("string")}),
            "id": datasets.Value("int64"),
            "source": datasets.Value("string"),
        }
    )
    rows = [
        {
            "images": [{"bytes": png(row), "path": None}] * (row % 3),
            "texts": [{"user": f"q{row}", "assistant": "a"}],
            "id": row,
            "source": "s",
        }
        for row in range(num_rows)
    ]
    return datasets.Dataset.from_list(rows, features=features)


def as_said(example: Any) -> tuple[Any, ...]:
    return example.key, example.pictures, example.conversations


def test_a_data_set_whole_and_streamed_gives_the_same_examples_with_undecoded_pictures(tmp_path: Path) -> None:
    whole = from_datasets(table())
    assert len(whole) == 12
    assert as_said(whole[5]) == ("5", (png(5), png(5)), ((says("user", IMAGE, IMAGE, "q5"), says("assistant", "a")),))
    table().to_parquet(tmp_path / "data.parquet")
    streamed = datasets.load_dataset("parquet", data_files=str(tmp_path / "data.parquet"), split="train", streaming=True)
    expected = [as_said(whole[index]) for index in range(12)]
    assert [as_said(example) for example in from_datasets(streamed)] == expected
    untyped = datasets.IterableDataset.from_generator(lambda: iter(table().with_format("arrow").data.to_pylist()))
    assert [as_said(example) for example in from_datasets(untyped)] == expected


def test_columns_can_be_named_and_pictures_may_be_paths_or_open() -> None:
    open_picture = Image.new("RGB", (4, 4))
    rows = [{"dialog": FORMS["llava"], "photo": "1.png", "name": "x"}, {"dialog": FORMS["llava"], "photo": open_picture, "name": "y"}]
    source = from_datasets(
        datasets.IterableDataset.from_generator(lambda: iter(rows)), text="dialog", pictures="photo", key="name", picture_folder="/p"
    )
    one, two = source
    assert (one.key, one.pictures, one.conversations) == ("x", (Path("/p/1.png"),), (ASKED,))
    assert two.pictures == (open_picture,)
    plain = from_datasets(
        datasets.Dataset.from_list([{"conversations": FORMS["llava"][1:]}, {"conversations": FORMS["llava"]}]), text_only=True
    )
    assert plain[1].pictures == ()


def test_unknown_forms_are_refused_with_the_columns_that_there_are() -> None:
    with pytest.raises(BadInput, match="no column is called messages or conversations or texts; the data set has images, id, source: name"):
        from_datasets(table().remove_columns("texts"))
    with pytest.raises(BadInput, match="there is no column 'dialog'; the data set has images, texts"):
        from_datasets(table(), text="dialog")
    with pytest.raises(BadInput, match=r"no column is called images or image; the data set has texts.*pictures=, or set text_only"):
        from_datasets(table().remove_columns("images"))
    with pytest.raises(
        BadInput, match=r"none of the first 8 rows is a conversation \(.* has the fields a; expected role.*columns images, texts, id"
    ):
        from_datasets(datasets.Dataset.from_list([{"images": None, "texts": [{"a": "b"}], "id": 0}] * 9))
    with pytest.raises(BadInput, match="a DatasetDict was given; expected a Dataset"):
        from_datasets(datasets.DatasetDict({"train": table()}))
    with pytest.raises(BadInput, match="text_only is set"):
        from_datasets(table(), pictures="images", text_only=True)
    with pytest.raises(BadInput, match="none of the first 0 rows"):
        from_datasets(table().select([]))


def test_a_trainers_data_set_is_made_into_examples_or_the_line_that_does_it_is_said(tmp_path: Path) -> None:
    expected = [as_said(example) for example in from_datasets(table())]
    assert [as_said(as_source(table())[index]) for index in range(12)] == expected
    stream = as_source(table().to_iterable_dataset())
    assert isinstance(stream, Stream)
    assert [as_said(example) for example in stream] == expected
    chat = datasets.Dataset.from_list([{"messages": FORMS["messages"], "images": [{"bytes": png(), "path": None}]}])
    assert as_said(as_source(chat)[0])[1:] == ((png(),), (ASKED,))
    (tmp_path / "data.json").write_text(json.dumps(LLAVA))
    for ready in ([from_datasets(table())[0]], from_datasets(table()), LlavaJson(tmp_path / "data.json", tmp_path), stream):
        assert as_source(ready) is ready
    with pytest.raises(BadInput, match=r"no column is called messages.*Give them: .*from_datasets\(dataset, text=\.\.\., pictures="):
        as_source(table().rename_column("texts", "dialog"))
    with pytest.raises(BadInput, match="a DatasetDict was given"):
        as_source(datasets.DatasetDict({"train": table()}))
    with pytest.raises(BadInput, match=r"rows of images, texts, id, source; expected TrainingExample.*Dataset\.from_list\(rows\)"):
        as_source(list(table(2)))
    with pytest.raises(BadInput, match="train_dataset is a list_iterator; expected a LlavaJson"):
        as_source(iter([]))


def test_one_bad_row_is_one_malformed_example() -> None:
    rows = [{"images": [png()], "texts": FORMS["finevision"]}, {"images": [3], "texts": FORMS["finevision"]}, {"images": [], "texts": []}]
    stream = from_datasets(datasets.IterableDataset.from_generator(lambda: iter(rows)))
    good, picture, words = stream
    assert isinstance(good, TrainingExample)
    assert isinstance(picture, Malformed) and picture.problem == "a picture is a int; expected a picture, its bytes, or a path"
    assert isinstance(words, Malformed) and "expected a list of turns" in words.problem


def keys_of(stream: Any) -> list[str]:
    return [visit.example.key for visit in stream]


def test_processes_share_a_stream_without_overlap_and_with_equal_numbers() -> None:
    visits = StreamedEpochs(from_datasets(table(12).to_iterable_dataset(num_shards=3)))
    shares = [keys_of(IterableDatasetShard(visits, batch_size=3, num_processes=2, process_index=rank)) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    assert sorted(map(int, shares[0] + shares[1])) == list(range(12))


def test_a_loaders_workers_share_a_stream_by_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    visits = StreamedEpochs(from_datasets(table(12).to_iterable_dataset(num_shards=4)))
    shares = []
    for worker in range(2):
        monkeypatch.setattr(torch.utils.data._utils.worker, "_worker_info", SimpleNamespace(id=worker, num_workers=2))
        shares.append(keys_of(visits))
    assert len(shares[0]) == len(shares[1]) == 6
    assert sorted(map(int, shares[0] + shares[1])) == list(range(12))


def test_a_shuffled_stream_has_another_order_and_epoch_in_each_pass() -> None:
    visits = StreamedEpochs(from_datasets(table(12).to_iterable_dataset(num_shards=3).shuffle(seed=1, buffer_size=8)))
    passes = []
    for epoch in (0, 1, 0):
        visits.set_epoch(epoch)
        passes.append(keys_of(visits))
        assert {visit.epoch for visit in visits} == {epoch}
    assert passes[0] == passes[2] != passes[1]
    assert sorted(passes[0]) == sorted(passes[1])


def test_the_epoch_sampler_shows_every_example_once_in_an_order_of_its_epoch() -> None:
    sampler = EpochSampler(10, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(first) == [(0, index) for index in range(10)]
    assert sorted(second) == [(1, index) for index in range(10)]
    assert [index for _, index in first] != [index for _, index in second]
    assert list(EpochSampler(10, seed=3)) == first != list(EpochSampler(10, seed=4))
    assert len(sampler) == 10


def test_processes_share_an_epoch_of_a_whole_data_set() -> None:
    sampler = EpochSampler(12, seed=0)
    sampler.set_epoch(2)
    shares = [list(BatchSamplerShard(BatchSampler(sampler, 3, False), num_processes=2, process_index=rank)) for rank in range(2)]
    drawn = [draw for share in shares for batch in share for draw in batch]
    assert sorted(drawn) == [(2, index) for index in range(12)]


def test_visits_are_loaded_by_epoch_and_index() -> None:
    sampler = EpochSampler(12, seed=0)
    sampler.set_epoch(4)
    source = from_datasets(table(12))
    loader = DataLoader(EpochDataset(source), batch_size=5, sampler=sampler, collate_fn=list)
    loaded = [visit for batch in loader for visit in batch]
    assert all(isinstance(visit, EpochExample) and visit.epoch == 4 for visit in loaded)
    assert [visit.example.key for visit in loaded] == [str(index) for _, index in sampler]
    assert len(EpochDataset(source)) == 12


def test_the_epoch_of_a_fixed_order_is_how_often_the_example_came_before() -> None:
    assert times_before(np.array([2, 0, 2, 1, 2, 0])).tolist() == [0, 0, 1, 0, 2, 1]
    draws = FixedOrder(training_order(5, 12, seed=3))
    assert [draws[at][0] for at in range(len(draws))] == [0] * 5 + [1] * 5 + [2] * 2
    assert [draws[at][1] for at in range(12)] == training_order(5, 12, seed=3).tolist()
    assert times_before(np.array([], dtype=np.int64)).tolist() == []


def test_a_worlds_examples_ask_each_question_on_its_own() -> None:
    data = examples("shape,row")
    source = WorldExamples(data)
    example = source[3]
    assert len(source) == len(data)
    assert np.array_equal(np.asarray(example.pictures[0]), data.pictures[3])
    assert example.conversations == tuple(
        (says("user", IMAGE, item.question), says("assistant", item.answer)) for item in data.questions[3]
    )
