"""The README: its Python runs as it stands, it is short, and its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainingArguments

from helpers import REPOSITORY, tiny_families
from helpers.command_line import run_warm
from helpers.tiny_llava import tiny_vlm
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import LlavaJson
from theodolite.data.tables import from_datasets
from theodolite.models.export import export_vlm
from theodolite.models.pictures import PictureReader
from theodolite.objectives.laver import LaverConfig
from theodolite.records.errors import BadInput
from theodolite.training.laver_trainer import LaverTrainer

README = REPOSITORY / "README.md"
WORDS = "what is its shape?"


def block_with(words: str) -> str:
    """The README's one block of Python that holds these words."""
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL) if words in block)
    return block


def write_data(folder: Path, number: int = 6, broken: int = 0) -> None:
    """LLaVA-format records and pictures; the first `broken` of these cannot be read."""
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    records = []
    for index in range(number):
        name = f"{index}.png"
        Image.fromarray(rng.integers(0, 255, (40 + index, 64, 3), dtype=np.uint8)).save(folder / "pictures" / name)
        if index < broken:
            (folder / "pictures" / name).write_bytes(b"no picture")
        talk = [{"from": "human", "value": f"<image>\n{WORDS}"}, {"from": "gpt", "value": "round"}]
        records.append({"id": index, "image": name, "conversations": talk})
    (folder / "data.json").write_text(json.dumps(records))


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    given: dict[str, Any] = {"max_steps": 2, "per_device_train_batch_size": 2, "save_strategy": "no", "logging_steps": 1, **options}
    return TrainingArguments(str(folder), use_cpu=True, report_to="none", disable_tqdm=True, dataloader_pin_memory=False, **given)


# Behind the README's lines that load the folder.
ASK = """
import sys
from PIL import Image
assert not any(name.partition(".")[0] == "theodolite" for name in sys.modules)
inputs = processor(images=[Image.open("pictures/0.png")], text=["<image> what is its shape?"], return_tensors="pt")
assert model(**inputs).logits.shape[1] == inputs["input_ids"].shape[1] > 64
"""


def test_the_readmes_lines_train_and_write_a_folder_that_another_script_loads(tmp_path: Path) -> None:
    """Typed as they stand; for speed the head is small and the steps few."""
    write_data(tmp_path)
    model, processor = tiny_vlm(frontend="patches")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_vlm(model, processor, tmp_path / "runs" / "tour" / "agree" / "model")
    block = block_with("LaverTrainer(")
    assert "LaverConfig()" in block and "max_steps=1000" in block
    lines = block.replace("LaverConfig()", "LaverConfig(head_hidden=24)").replace("max_steps=1000", "max_steps=2, logging_steps=1")
    (tmp_path / "train.py").write_text(lines + "assert 'loss/gram' in trainer.state.log_history[0]\n")
    done = run_warm(tmp_path / "train.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    # From nothing, as a script of another's loads it.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    load = [sys.executable, "-c", block_with("AutoProcessor") + ASK]
    done = subprocess.run(load, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    trained = load_file(tmp_path / "out" / "model.safetensors")
    changed = [name for name, value in trained.items() if not torch.equal(value, before[name])]
    assert any("language_model" in name for name in changed)
    assert any("projector" in name for name in changed)


def test_the_readmes_six_lines_survey_and_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    export_vlm(*tiny_vlm(frontend="patches"), tmp_path / "runs" / "tour" / "agree" / "model")
    block = block_with("survey_model(")
    assert sum(bool(line.strip()) for line in block.splitlines()) == 6
    assert "num_scenes=50" in block
    exec(block.replace("num_scenes=50", "num_scenes=4"), {})
    printed = capsys.readouterr().out
    assert "'shape': 0.0" in printed and "'row': 1.0" in printed
    record = json.loads((tmp_path / "runs" / "agree" / "survey.json").read_text())
    assert record["policy"] == "shape:agree,row"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) < 120


def trainer_on(dataset: Any, folder: Path, **options: Any) -> LaverTrainer:
    model, processor = tiny_vlm(frontend="patches")
    reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)
    collator = PackingCollator(processor.tokenizer, reader, max_length=200, chat_template=processor.chat_template)
    laver = LaverConfig(head_hidden=24)
    return LaverTrainer(model, laver, args=arguments(folder, **options), train_dataset=dataset, data_collator=collator)


def test_a_stream_trains_as_well_and_its_batches_stay_whole(tmp_path: Path) -> None:
    import datasets

    write_data(tmp_path)
    records = json.loads((tmp_path / "data.json").read_text())
    rows = [{**row, "id": str(row["id"]), "image": str(tmp_path / "pictures" / row["image"])} for row in records]
    stream = datasets.Dataset.from_list(rows).to_iterable_dataset()
    trainer = trainer_on(from_datasets(stream), tmp_path / "run")
    trainer.train()
    # Two pictures of 64 tokens a step, all of them in the batch.
    assert [entry["loss"] > 0 for entry in trainer.state.log_history if "loss" in entry] == [True, True]
    assert trainer.dropped.num_seen == 4


def test_dispatched_batches_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="dispatch_batches cuts packed batches apart"):
        trainer_on([], tmp_path, accelerator_config={"dispatch_batches": True})


def test_unreadable_pictures_are_counted_and_listed_and_past_a_fraction_stop_the_run(tmp_path: Path) -> None:
    write_data(tmp_path, number=6, broken=1)
    source = LlavaJson(tmp_path / "data.json", tmp_path / "pictures")
    trainer = trainer_on(source, tmp_path / "run", max_steps=3)
    trainer.dropped.max_damaged_frac = 0.2
    trainer.train()
    assert trainer.dropped.lines() == ["1 of 6 examples left out: unreadable"]
    strict = trainer_on(source, tmp_path / "run", max_steps=3)
    with pytest.raises(BadInput, match="1 of the 6 examples cannot be used"):
        strict.train()


def test_epochs_draw_other_orders_and_other_masks(tmp_path: Path) -> None:
    write_data(tmp_path)
    trainer = trainer_on(LlavaJson(tmp_path / "data.json", tmp_path / "pictures"), tmp_path / "run", max_steps=6)
    seen: list[tuple[str, int]] = []
    collate = trainer.data_collator

    def watching(visits: Any) -> Any:
        seen.extend((visit.example.key, visit.epoch) for visit in visits)
        return collate(visits)

    trainer.data_collator = watching
    trainer.train()
    first, second = seen[:6], seen[6:12]
    assert {epoch for _, epoch in first} == {0} and {epoch for _, epoch in second} == {1}
    assert sorted(key for key, _ in first) == sorted(key for key, _ in second) == [str(index) for index in range(6)]
    assert [key for key, _ in first] != [key for key, _ in second]


def test_a_back_end_that_drops_masks_is_refused_before_anything_runs(tmp_path: Path) -> None:
    model, _, _ = tiny_families.tiny("llava")
    model.config.get_text_config()._attn_implementation = "flash_attention_2"
    with pytest.raises(BadInput, match="eager, sdpa, flex_attention"):
        LaverTrainer(model, LaverConfig(head_hidden=24), args=arguments(tmp_path))


def test_gradient_checkpointing_keeps_less_for_the_backward_pass_and_changes_no_loss(tmp_path: Path) -> None:
    write_data(tmp_path)
    losses, kept_bytes = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        source = LlavaJson(tmp_path / "data.json", tmp_path / "pictures")
        trainer = trainer_on(source, tmp_path / "run", activation_checkpointing=checkpointing)
        sizes: list[int] = []

        def kept(tensor: torch.Tensor, sizes: list[int] = sizes) -> torch.Tensor:
            sizes.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
            trainer.train()
        kept_bytes.append(sum(sizes))
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert kept_bytes[1] < 0.7 * kept_bytes[0]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
