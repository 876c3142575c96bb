"""Packed batches: whole samples side by side, pictures and labels where they belong, and masks that do not depend on the packing."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.data_loader import prepare_data_loader
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from helpers.conversations import IMAGE, LINES, picture, says
from helpers.tiny_families import BUILDERS, tokenizer
from helpers.tiny_llava import examples, tiny_vlm
from theodolite.data.collate import Collator
from theodolite.data.epochs import EpochDataset, EpochExample, EpochSampler, StreamedEpochs
from theodolite.data.packing import PackingCollator, first_fit, pack
from theodolite.data.samples import Sample
from theodolite.data.sources import Malformed, TrainingExample, WorldExamples
from theodolite.models.construction.frontends import Pixels
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.exported.grids import token_grid
from theodolite.models.exported.layout import Layout
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import IGNORE
from theodolite.objectives.masking import draw_ranks
from theodolite.records.errors import BadInput
from theodolite.worlds.decoding import DAMAGED_METADATA, FIRST_FRAME, NOTES

LAYOUT = ("input_ids", "sample", "branch", "picture", "cell", "rank", "dither")


def collator(name: str = "llava", max_length: int = 200, **more: Any) -> PackingCollator:
    config, _, image_processor = BUILDERS[name](1)
    words = tokenizer(name)
    template = LINES if name == "llava" else None
    return PackingCollator(words, PictureReader(image_processor, words, config), max_length=max_length, chat_template=template, **more)


def example(
    key: str, num_pictures: int = 1, question: str = "what", answer: str = "red", size: tuple[int, int] = (32, 32)
) -> TrainingExample:
    pictures = tuple(picture(sum(map(ord, key)) + at, size) for at in range(num_pictures))
    return TrainingExample(key, pictures, ((says("user", *[IMAGE] * num_pictures, question), says("assistant", answer)),))


MIXED = (
    example("a", 1, "what colour is the shape", "red"),
    example("b", 0, "what", "yes"),
    example("c", 2, "are some", "blue round"),
    example("d", 1, "a b c d e f g h", "no"),
    example("e", 1, "shape", "b"),
)


def test_a_hand_made_batch_comes_out_to_the_number() -> None:
    one = Sample("one", (5, 9, 9, 6, 7), (IGNORE, IGNORE, IGNORE, 7, 8), (0, 0, 0, 1, 1), (token_grid(1, 2),))
    two = Sample("two", (9, 3), (4, 2), (0, 0), (token_grid(1, 1),))
    three = Sample("three", (9, 9, 9, 1), (IGNORE, IGNORE, IGNORE, 6), (0, 0, 0, 0), (token_grid(2, 1), token_grid(1, 1)))
    batch = pack([[one, two], [three]], [[0, 0], [4]], 0, 9, 17)
    assert batch["input_ids"].tolist() == [[5, 9, 9, 6, 7, 9, 3], [9, 9, 9, 1, 0, 0, 0]]
    assert batch["sample"].tolist() == [[0, 0, 0, 0, 0, 1, 1], [2, 2, 2, 2, -1, -1, -1]]
    assert batch["branch"].tolist() == [[0, 0, 0, 1, 1, 0, 0], [0] * 7]
    assert batch["picture"].tolist() == [[-1, 0, 0, -1, -1, 1, -1], [2, 2, 3, -1, -1, -1, -1]]
    assert batch["cell"][0].tolist() == [[0, 0], [0, 0], [0, 1], [0, 0], [0, 0], [0, 0], [0, 0]]
    assert batch["cell"][1, :3].tolist() == [[0, 0], [1, 0], [0, 0]]
    assert batch["predicts"].tolist() == [3, 4, 5, 6, 10]
    assert batch["labels"].tolist() == [7, 8, 4, 2, 6]
    first, dither = draw_ranks(2, 17, "one", 0, 0)
    assert batch["rank"][0].tolist() == [-1, *first.tolist(), -1, -1, 0, -1]
    assert batch["dither"][0].tolist() == [0.0, dither, dither, 0.0, 0.0, draw_ranks(1, 17, "two", 0, 0)[1], 0.0]
    assert batch["rank"][1].tolist() == [*draw_ranks(2, 17, "three", 4, 0)[0].tolist(), 0, -1, -1, -1, -1]
    assert batch["dither"][1, 2] == draw_ranks(1, 17, "three", 4, 1)[1]
    assert {name: batch[name].dtype for name in ("rank", "dither", "predicts")} == {
        "rank": torch.int64,
        "dither": torch.float64,
        "predicts": torch.int64,
    }


def test_first_fit_fills_the_first_row_with_room() -> None:
    assert first_fit([4, 5, 3, 3, 1, 2, 6], 8) == [[0, 2, 4], [1, 3], [5, 6]]
    assert first_fit([], 8) == []
    with pytest.raises(ValueError, match="a sample of 9 tokens fits in no row of 8"):
        first_fit([3, 9], 8)


def parts(batch: dict[str, Any], num_samples: int) -> list[dict[str, Any]]:
    """Each sample of a batch by itself, in the order of their numbers: its tokens, its labels, and its own pictures from 0."""
    width = batch["input_ids"].shape[1]
    labels = torch.full((batch["input_ids"].numel(),), IGNORE).index_put_((batch["predicts"],), batch["labels"])
    found = []
    for number in range(num_samples):
        where = batch["sample"].flatten() == number
        places = where.nonzero()[:, 0]
        assert places.tolist() == list(range(int(places[0]), int(places[0]) + len(places)))  # contiguous
        assert int(places[0]) // width == int(places[-1]) // width  # in one row
        part = {name: batch[name].flatten(0, 1)[where].tolist() for name in LAYOUT if name not in ("sample", "picture")}
        pictures = batch["picture"].flatten()[where]
        low = int(pictures[pictures >= 0].min()) if (pictures >= 0).any() else 0
        found.append({**part, "picture": [at - low if at >= 0 else -1 for at in pictures.tolist()], "labels": labels[where].tolist()})
    return found


def pixels_of(batch: dict[str, Any]) -> list[Tensor]:
    return list(batch["pixel_values"])


@pytest.mark.parametrize("row_length", [200, 48, 64, None])
def test_packing_moves_samples_and_changes_nothing_in_them(row_length: int | None) -> None:
    length = 48
    batch = collator(max_length=length, row_length=row_length)(MIXED)
    alone = {one.key: collator(max_length=length)([one]) for one in MIXED}
    assert batch["dropped"] == [] and batch["num_seen"] == 5
    if row_length is None:
        assert len(batch["input_ids"]) == 5
    else:
        assert batch["input_ids"].shape[1] <= row_length
        assert (batch["sample"][:, 0] >= 0).all() and len(batch["input_ids"]) < 5
    found, pixels = parts(batch, 5), pixels_of(batch)
    expected = {key: parts(single, 1)[0] for key, single in alone.items()}
    order = [next(key for key, one in expected.items() if one == part) for part in found]
    assert sorted(order) == list("abcde")
    joined = [picture for key in order if "pixel_values" in alone[key] for picture in pixels_of(alone[key])]
    assert len(pixels) == len(joined) == 5 and all(torch.equal(mine, other) for mine, other in zip(pixels, joined, strict=True))
    seen = batch["picture"][batch["picture"] >= 0].tolist()
    assert seen == sorted(seen) and set(seen) == set(range(5))
    real = batch["sample"] >= 0
    assert (batch["input_ids"][~real] == tokenizer("llava").pad_token_id).all()
    assert not any(
        bool((batch[name][~real] != filler).any()) for name, filler in {"rank": -1, "picture": -1, "dither": 0, "branch": 0}.items()
    )


def test_first_fit_reorders_pictures_with_their_samples() -> None:
    """A short sample that is put into an earlier row takes its pixels with it."""
    long, short = example("x", 1, " ".join(["a"] * 20)), example("y", 1, "a")
    batch = collator(max_length=60, row_length=70)([long, example("z", 1, " ".join(["b"] * 20)), short])
    assert batch["input_ids"].shape[0] == 2
    alone = collator(max_length=60)([short])["pixel_values"]
    assert torch.equal(batch["pixel_values"][1:2], alone)
    assert (batch["sample"][0] == 1).any() and not (batch["sample"][0] == 2).any()


def drawn(batch: dict[str, Any]) -> dict[int, tuple[list[int], float]]:
    """Ranks and dither of each picture."""
    return {
        number: (batch["rank"][batch["picture"] == number].tolist(), float(batch["dither"][batch["picture"] == number][0]))
        for number in range(int(batch["picture"].max()) + 1)
    }


def test_masks_depend_on_example_epoch_picture_and_seed_and_on_nothing_else() -> None:
    make, two = collator(), example("c", 2)
    alone = drawn(make([EpochExample(two, 3)]))
    beside = drawn(collator(row_length=200)([EpochExample(MIXED[0], 1), EpochExample(two, 3)]))
    assert [beside[1], beside[2]] == [alone[0], alone[1]]
    assert alone[0] != alone[1]
    assert drawn(make([EpochExample(two, 4)]))[0] != alone[0]
    assert drawn(collator(seed=1)([EpochExample(two, 3)]))[0] != alone[0]
    assert drawn(make([two])) == drawn(make([EpochExample(two, 0)])) != alone
    assert sorted(alone[0][0]) == list(range(16))


@pytest.mark.parametrize("name", ["smolvlm", "internvl", "gemma3", "qwen2_5_vl", "llava_onevision"])
def test_tiles_and_pictures_of_many_sizes_keep_their_cells(name: str) -> None:
    make = collator(name, row_length=400)
    visits = [example("a", 1, size=(40, 40)), example("b", 2, size=(24, 60)), example("c", 1, size=(56, 30))]
    batch = make(visits)
    grids = [cells for one in (make.maker.make(visit) for visit in visits) for cells in one.grids]
    layout = Layout(batch["sample"], batch["branch"], batch["picture"], batch["cell"])
    assert layout.sizes() == [len(cells) for cells in grids]
    assert batch["cell"][layout.vision].tolist() == torch.cat(grids).tolist()
    assert all(sorted(ranks) == list(range(len(ranks))) for ranks, _ in drawn(batch).values())


def test_notes_of_the_decoder_about_pictures_of_kept_examples_are_counted() -> None:
    """Two animations, one of them in an example that is left out, and a picture with damaged metadata."""
    red, blue = (Image.new("RGB", (30, 30), colour) for colour in ("red", "blue"))
    animated, damaged = BytesIO(), BytesIO()
    red.save(animated, "GIF", save_all=True, append_images=[blue])
    red.save(damaged, "PNG", exif=b"Exif\0\0II+\0\x08\0\0\0\0\0")
    kept = [TrainingExample(str(at), (file.getvalue(),), example("a", 1).conversations) for at, file in enumerate((animated, damaged))]
    long = TrainingExample("long", (animated.getvalue(),), example("long", 1, " ".join(["a"] * 300)).conversations)
    batch = collator()([*kept, long, MIXED[0]])
    assert NOTES == (FIRST_FRAME, DAMAGED_METADATA) and batch["noted"] == [1, 1]
    assert [key for key, _ in batch["dropped"]] == ["long"] and collator()(MIXED)["noted"] == [0, 0]


def test_what_is_left_out_is_named_and_the_rest_is_the_batch_without_it() -> None:
    bad = TrainingExample("bad", (b"no picture",), MIXED[0].conversations)
    long = example("long", 1, " ".join(["a"] * 300))
    visits = [bad, MIXED[0], EpochExample(Malformed("odd", "no turns"), 2), MIXED[2], long]
    batch, kept = collator()(visits), collator()([MIXED[0], MIXED[2]])
    assert batch["num_seen"] == 5
    assert [key for key, _ in batch["dropped"]] == ["bad", "odd", "long"]
    reasons = [reason.partition(":")[0] for _, reason in batch["dropped"]]
    assert reasons == ["unreadable", "malformed", "too long"]
    assert batch["dropped"][1] == ("odd", "malformed: no turns")
    assert all(torch.equal(batch[name], kept[name]) for name in (*LAYOUT, "predicts", "labels", "pixel_values"))


def test_a_batch_of_which_nothing_is_left_is_one_padding_token_and_predicts_nothing() -> None:
    batch = collator()([Malformed("odd", "no turns")])
    assert batch["input_ids"].tolist() == [[tokenizer("llava").pad_token_id]]
    assert batch["sample"].tolist() == batch["picture"].tolist() == batch["rank"].tolist() == [[-1]]
    assert batch["cell"].shape == (1, 1, 2)
    assert batch["predicts"].tolist() == batch["labels"].tolist() == []
    assert batch["predicts"].dtype == batch["labels"].dtype == torch.int64
    assert "pixel_values" not in batch
    assert "pixel_values" not in collator()([MIXED[1]])


def test_rows_too_short_and_tokenizers_without_padding_are_refused() -> None:
    with pytest.raises(BadInput, match="rows of 50 tokens cannot hold samples of 60"):
        collator(max_length=60, row_length=50)
    made = collator()
    silent = tokenizer("llava")
    silent.pad_token = None
    with pytest.raises(BadInput, match="no pad token"):
        PackingCollator(silent, made.reader, max_length=60)
    silent.pad_token = "<image>"
    with pytest.raises(BadInput, match="has the image token '<image>' for its pad token"):
        PackingCollator(silent, made.reader, max_length=60)


def world_batches(draws: Sequence[tuple[int, int]]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The same draws of a world through the fast collator and through the general one."""
    model, processor = tiny_vlm()
    data = examples("shape,row:odd")
    fast = Collator(data, QuestionTokenizer(processor, 64), Pixels(processor.image_processor), seed=5)
    reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)
    slow = PackingCollator(processor.tokenizer, reader, max_length=512, seed=5, chat_template=processor.chat_template)
    visits = EpochDataset(WorldExamples(data))
    return fast(draws), slow([visits[draw] for draw in draws])


def test_a_world_gives_the_same_batch_fast_and_through_the_general_path() -> None:
    fast, slow = world_batches([(0, 3), (2, 7), (1, 3), (0, 11)])
    assert all(torch.equal(value, slow[name]) for name, value in fast.items() if name not in ("pixel_values", "plan"))
    torch.testing.assert_close(fast["pixel_values"], slow["pixel_values"], atol=1e-6, rtol=0)
    assert set(slow) - set(fast) == {"dropped", "num_seen", "noted"}
    assert fast["branch"].max() == 2  # "row:odd" leaves some pictures with one question: those need no branch
    assert not torch.equal(fast["rank"][0], fast["rank"][2])  # the same picture in two epochs


class Streamed:
    def __init__(self) -> None:
        self.told: list[int] = []

    def __iter__(self) -> Any:
        return iter(MIXED)

    def set_epoch(self, epoch: int) -> None:
        self.told.append(epoch)


def test_accelerate_tells_a_stream_its_epoch_and_leaves_batches_whole_if_it_does_not_dispatch() -> None:
    make, stream = collator(row_length=200), Streamed()
    loader = DataLoader(StreamedEpochs(stream), batch_size=5, collate_fn=make)
    kept = prepare_data_loader(loader, device=torch.device("cpu"), put_on_device=True, dispatch_batches=False)
    for epoch in range(2):
        (batch,) = list(kept)
        expected = make([EpochExample(one, epoch) for one in MIXED])
        assert all(torch.equal(batch[name], expected[name]) for name in (*LAYOUT, "predicts", "labels", "pixel_values"))
        assert batch["dropped"] == [] and batch["num_seen"] == 5
    assert stream.told == [0, 1]


def test_batches_are_the_same_from_worker_processes() -> None:
    sampler = EpochSampler(5, seed=0)
    sampler.set_epoch(1)

    def loaded(num_workers: int) -> list[dict[str, Any]]:
        visits = EpochDataset(MIXED)
        return list(DataLoader(visits, batch_size=2, sampler=sampler, collate_fn=collator(row_length=200), num_workers=num_workers))

    for mine, theirs in zip(loaded(0), loaded(2), strict=True):
        assert all(torch.equal(mine[name], theirs[name]) for name in (*LAYOUT, "predicts", "labels"))


def test_an_open_picture_and_its_file_give_the_same_pixels(tmp_path: Any) -> None:
    open_one = example("a")
    open_one.pictures[0].save(tmp_path / "a.png")
    files = TrainingExample("a", (tmp_path / "a.png",), open_one.conversations)
    content = TrainingExample("a", ((tmp_path / "a.png").read_bytes(),), open_one.conversations)
    expected = collator()([open_one])["pixel_values"]
    assert all(torch.equal(collator()([one])["pixel_values"], expected) for one in (files, content))
    assert isinstance(open_one.pictures[0], Image.Image) and np.asarray(open_one.pictures[0]).shape == (32, 32, 3)
