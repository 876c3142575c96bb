"""Data in a training run: what stops it, what does not, and that a resumed run goes on with the example that came next."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PrinterCallback

from helpers import HELPERS, script_environment
from helpers.conversations import IMAGE, LINES, picture, says
from helpers.tiny_families import tiny
from helpers.tiny_training import arguments
from theodolite.data.drops import Dropped
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import LlavaJson, TrainingExample
from theodolite.models.forward import base_model
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.objectives.laver import LaverConfig
from theodolite.records.errors import BadInput
from theodolite.training.laver_trainer import LaverTrainer
from theodolite.training.objective_module import ObjectiveModule
from theodolite.training.trainer import ObjectiveTrainer


def example(key: str, *words: str) -> TrainingExample:
    conversation = (says("user", IMAGE, "what colour", *words), says("assistant", "red"))
    return TrainingExample(key, (picture(int(key)),), (conversation,))


LONG = ["a " * 60]


def trainer(
    folder: Path, data: Any, *, laver: bool = False, max_length: int = 60, max_damaged_frac: float = 0.01, **options: Any
) -> ObjectiveTrainer:
    """A trainer of a tiny LLaVA in float32, two examples a step."""
    torch.manual_seed(5)
    model, image_processor, words = tiny("llava")
    reader = PictureReader(image_processor, words, base_model(model).config)
    given = {
        "args": arguments(folder / "out", **options),
        "train_dataset": data,
        "data_collator": PackingCollator(words, reader, max_length=max_length, chat_template=LINES),
        "max_damaged_frac": max_damaged_frac,
    }
    if laver:
        made: ObjectiveTrainer = LaverTrainer(model, LaverConfig(head_hidden=16), **given)
    else:
        made = ObjectiveTrainer(ObjectiveModule(model, Language()), **given)
    made.remove_callback(PrinterCallback)
    return made


def weights(made: ObjectiveTrainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in made.objective_module.state_dict().items()}


def written(path: Path, records: Any) -> Path:
    path.write_text(json.dumps(records))
    return path


CHAT = [{"messages": [{"role": "user", "content": "<image>who"}, {"role": "assistant", "content": "a"}], "images": ["a.png"]}] * 6
TURNS = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]
LOST = [{"id": str(number), "image": f"{number}.png", "conversations": TURNS} for number in range(40)]


@pytest.mark.parametrize("laver", [False, True])
@pytest.mark.parametrize(
    ("kind", "steps", "message"),
    [
        ("other keys", 3, r"malformed.*the conversation is None.*from_datasets"),
        ("wrong folder", 20, r"unreadable: .*\.png .*FileNotFoundError"),
        ("too long", 80, r"none of the 40 examples seen can be trained on \(40 too long\).*: \d+ \(too long: .*raise max_length"),
        ("too long", 3, r"none of the 6 examples seen can be trained on \(6 too long\)"),
    ],
)
def test_a_run_in_which_every_example_is_left_out_is_no_success(tmp_path: Path, kind: str, steps: int, message: str, laver: bool) -> None:
    data: Any = {
        "other keys": lambda: LlavaJson(written(tmp_path / "a.json", CHAT), tmp_path),
        "wrong folder": lambda: LlavaJson(written(tmp_path / "a.json", LOST), tmp_path),
        "too long": lambda: [example(str(number), *LONG) for number in range(40)],
    }[kind]()
    made = trainer(tmp_path, data, laver=laver, max_steps=steps, save_strategy="steps", save_steps=1000, weight_decay=0.1)
    before = weights(made)
    with pytest.raises(BadInput, match=message):
        made.train()
    assert all(torch.equal(before[name], value) for name, value in weights(made).items())
    assert not list(tmp_path.glob("out/checkpoint-*"))


def in_order(epoch: int, num: int = 10) -> list[int]:
    return random.Random(epoch).sample(range(num), num)


class Stream:
    """Examples "0" to "9" in an order of the epoch; `long` of them are too long."""

    def __init__(self, num: int = 10, long: int = 0) -> None:
        self.num, self.long, self.epoch = num, long, 0

    def __iter__(self) -> Iterator[TrainingExample]:
        return (example(str(number), *(LONG if number < self.long else [])) for number in in_order(self.epoch, self.num))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Once(Stream):
    """A stream that can be iterated once, as a generator."""

    def __init__(self, num: int) -> None:
        super().__init__(num)
        self.examples = super().__iter__()

    def __iter__(self) -> Iterator[TrainingExample]:
        return self.examples


def test_a_stream_that_gives_nothing_or_only_what_is_left_out_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="the stream gave no example in a pass, after 0 of 3 steps"):
        trainer(tmp_path, Stream(0)).train()
    with pytest.raises(BadInput, match=r"the stream gave no example in a pass, after 2 of 3 steps; .*iterated repeatedly"):
        trainer(tmp_path, Once(4)).train()
    with pytest.raises(BadInput, match="none of the 100 examples seen can be trained on"):
        trainer(tmp_path, Stream(10, long=10), max_steps=500).train()


@pytest.mark.parametrize("laver", [False, True])
def test_a_step_without_any_sample_moves_nothing(tmp_path: Path, laver: bool) -> None:
    """Weight decay and the optimizer's momentum would: the second step of three has no sample."""
    states: dict[int, dict[str, torch.Tensor]] = {}

    class Keep(PrinterCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            states[state.global_step] = weights(made)

        def on_log(self, *args: Any, **kwargs: Any) -> None:
            pass

    class Given(Stream):
        def __iter__(self) -> Iterator[TrainingExample]:
            return (example(str(number), *(LONG if number in (2, 3) else [])) for number in range(6))

    made = trainer(tmp_path, Given(), laver=laver, weight_decay=0.5)
    made.add_callback(Keep())
    made.train()
    assert made.state.global_step == 3
    assert all(torch.equal(states[1][name], value) for name, value in states[2].items())
    assert any(not torch.equal(states[2][name], value) for name, value in states[3].items())
    assert made.dropped.counts == {"too long": 2}


def shuffled(num_damaged: int, seed: int) -> list[bool]:
    order = [number < num_damaged for number in range(1000)]
    random.Random(seed).shuffle(order)
    return order


def counted(tally: Dropped, order: list[bool]) -> int:
    """The number of examples after which a tally stops, in batches of 8; 0 if it does not."""
    for at in range(0, len(order), 8):
        batch = order[at : at + 8]
        try:
            tally.add([(str(at + number), "unreadable: cut") for number, bad in enumerate(batch) if bad], len(batch))
        except BadInput:
            return at + len(batch)
    return 0


@pytest.mark.parametrize("num_examples", [None, 1000])
def test_damage_below_the_allowed_share_is_accepted_in_every_order_and_five_times_it_stops_early(num_examples: int | None) -> None:
    stops = [counted(Dropped(num_examples=num_examples), shuffled(9, seed)) for seed in range(200)]
    assert sum(map(bool, stops)) <= 1
    stops = sorted(counted(Dropped(num_examples=num_examples), shuffled(50, seed)) for seed in range(50))
    assert stops[0] > 0 and stops[25] < 400


def test_one_damaged_example_too_many_of_a_known_number_is_certain() -> None:
    tally = Dropped(num_examples=1000)
    for number in range(10):
        tally.add([(str(number), "unreadable: cut")], 100)
        tally.add([(str(number), "unreadable: cut")], 100)  # the same one in the next pass
    with pytest.raises(BadInput, match=r"^11 of the 1000 examples cannot be used, more than the 1\.0% allowed: 0 \(unreadable: cut\); 1 "):
        tally.add([("11", "unreadable: cut")], 100)


def test_keys_and_reasons_can_be_printed_whatever_they_hold() -> None:
    tally = Dropped(max_damaged_frac=1.0)
    tally.add([("a\ud800", "malformed: b\udc00")], 2)
    assert tally.listed == {"a\\ud800": "malformed: b\\udc00"}


def test_the_allowed_share_is_a_keyword_of_the_trainer(tmp_path: Path) -> None:
    data = LlavaJson(written(tmp_path / "a.json", LOST[:3]), tmp_path)
    mixed = [example("1"), *(data[number] for number in range(3))]
    with pytest.raises(BadInput, match=r"--max-damaged-frac FRACTION of theodolite train, max_damaged_frac=FRACTION of the"):
        trainer(tmp_path, mixed).train()
    made = trainer(tmp_path, mixed, max_steps=2, max_damaged_frac=0.8)
    made.train()
    assert made.dropped.counts["unreadable"] == 3


def seen(folder: Path, resumed: str | None, accumulation: int, steps: int = 12) -> tuple[list[list[Any]], dict[str, torch.Tensor]]:
    """(key, epoch) of the examples of each step, and the final weights, of a run on a stream of ten examples."""
    options = {"max_steps": steps, "save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": accumulation}
    made = trainer(folder, Stream(), lr_scheduler_type="constant", **options)
    collate, drawn = made.data_collator, []

    def listed(visits: Any) -> Any:
        return {**collate(visits), "keys": [(visit.example.key, visit.epoch) for visit in visits]}

    made.data_collator = listed
    inner = made.get_batch_samples

    def recorded(*arguments: Any) -> Any:
        batches, counts = inner(*arguments)
        if batches:
            assert len(batches) == accumulation
            drawn.append([key for batch in batches for key in batch["keys"]])
        return batches, counts

    made.get_batch_samples = recorded  # type: ignore[method-assign]
    made.train(resume_from_checkpoint=resumed)
    return drawn, weights(made)


@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_resumed_run_on_a_stream_sees_what_the_undisturbed_run_saw(tmp_path: Path, accumulation: int) -> None:
    """Ten examples in five batches a pass; checkpoints inside later passes (7) and at a pass's end (4 or 5, 10)."""
    whole, ended = seen(tmp_path, None, accumulation)
    assert len(whole) == 12
    shown = [key for step in whole for key in step]
    per_pass = 5 if accumulation == 1 else 2  # steps
    assert shown == [(str(key), epoch) for epoch in range(12 // per_pass + 1) for key in in_order(epoch)][: len(shown)]
    for step in (3, 5, 7, 10):
        rest, again = seen(tmp_path, str(tmp_path / f"out/checkpoint-{step}"), accumulation)
        assert rest == whole[step:]
        assert all(torch.equal(ended[name], value) for name, value in again.items())


def test_a_run_that_was_done_goes_on_in_the_pass_in_which_it_ended(tmp_path: Path) -> None:
    whole, _ = seen(tmp_path / "whole", None, 1, steps=12)
    for steps in (3, 8):
        seen(tmp_path / f"{steps}", None, 1, steps=steps)
        rest, _ = seen(tmp_path / f"{steps}", str(tmp_path / f"{steps}/out/checkpoint-{steps}"), 1, steps=12)
        assert rest == whole[steps:]


def test_several_processes_stop_together_where_all_their_examples_are_left_out(tmp_path: Path) -> None:
    environment = script_environment({"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*command, str(HELPERS / "left_out_run.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        # Three empty steps, then the end of the first pass: two processes see its eight examples in four steps.
        assert (tmp_path / f"{rank}.txt").read_text().startswith("3 True none of the 8 examples seen can be trained on (8 too long)")
