"""What `save_model` and `push_to_hub` leave: folders that `from_pretrained` and `AutoProcessor` load, whatever the trainer was given."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import RepoUrl
from peft import LoraConfig, get_peft_model
from transformers import AutoProcessor

from helpers import tiny_families
from helpers.tiny_training import laver_trainer
from theodolite.data.packing import PackingCollator
from theodolite.models.forward import Adaptation
from theodolite.models.load import load_vlm
from theodolite.models.processor import ProcessorParts
from theodolite.objectives.laver import LaverConfig
from theodolite.records.errors import BadInput

# In a process of its own, which knows nothing of the training: a folder's model and processor.
LOAD = """
import sys
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained(sys.argv[1], trust_remote_code=True)
processor = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)
print(type(model).__name__, type(processor).__name__, len(processor.tokenizer) > 0, processor.image_processor is not None)
"""


def loaded_elsewhere(folder: Path) -> str:
    done = subprocess.run([sys.executable, "-c", LOAD, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def same_inputs(folder: Path, model: Any, image_processor: Any, tokenizer: Any) -> None:
    """The saved processor gives what the model was trained on."""
    processor = AutoProcessor.from_pretrained(folder)
    picture = tiny_families.picture(3)
    made = processor(images=[picture], text="<user><image>what colour<assistant>", return_tensors="pt")
    assert torch.equal(made["pixel_values"], image_processor([picture], return_tensors="pt")["pixel_values"])
    with torch.no_grad():
        logits = model(**made).logits
    assert logits.shape[1] == made["input_ids"].shape[1]
    assert processor.tokenizer.get_vocab() == tokenizer.get_vocab()


def test_the_collators_processor_is_saved_where_none_is_given(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path / "run")
    trainer.train()
    trainer.save_model(str(tmp_path / "out"))
    load_vlm(tmp_path / "out")
    assert loaded_elsewhere(tmp_path / "out") == "TheodoliteForConditionalGeneration LlavaProcessor True True"
    model, image_processor, tokenizer = tiny_families.tiny("llava")
    same_inputs(tmp_path / "out", model, image_processor, tokenizer)


def test_a_processor_that_made_the_collator_is_saved_as_it_is(tmp_path: Path) -> None:
    model, image_processor, tokenizer = tiny_families.tiny("llava")
    processor = ProcessorParts(image_processor, tokenizer, model.config, "{{ 'own template' }}")
    collator = PackingCollator.of_processor(processor, model.config, max_length=64, chat_template=tokenizer.chat_template)
    trainer = laver_trainer(tmp_path, model, given={"data_collator": collator})
    assert trainer.processing_class is processor
    trainer.save_model(str(tmp_path / "out"))
    assert load_vlm(tmp_path / "out")[1].chat_template == "{{ 'own template' }}"


def test_a_tokenizer_as_the_processing_class_is_completed_by_the_collator(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path / "run", given={"processing_class": tiny_families.tokenizer("llava")})
    trainer.save_model(str(tmp_path / "out"))
    assert loaded_elsewhere(tmp_path / "out") == "TheodoliteForConditionalGeneration LlavaProcessor True True"


@pytest.mark.parametrize("name", tiny_families.NAMES)
def test_every_familys_saved_folder_loads_with_its_processor(name: str, tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path / "run", family=name)
    trainer.save_model(str(tmp_path / "out"))
    _, processor = load_vlm(tmp_path / "out")
    # PaliGemma's Processor adds its tokens for places to any tokenizer.
    assert processor.tokenizer.get_vocab().items() >= tiny_families.tokenizer(name).get_vocab().items()
    assert processor.image_processor.to_dict() == tiny_families.parts(name)[0].to_dict()
    assert processor.tokenizer.chat_template == tiny_families.tokenizer(name).chat_template


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("name", ["llava", "idefics3", "paligemma", "gemma3"])
def test_an_assembled_processor_writes_as_many_image_tokens_as_the_model_takes(name: str, tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path / "run", family=name)
    trainer.save_model(str(tmp_path / "out"))
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    marker = "<start_of_image>" if name == "gemma3" else "<image>"
    made = processor(images=[[tiny_families.picture(3)]], text=[f"{marker}what colour"], return_tensors="pt")
    assert tiny_families.tiny(name)[0](**made).logits.shape[1] == made["input_ids"].shape[1]


def test_a_tokenizer_alone_is_refused_by_name(tmp_path: Path) -> None:
    given = {"processing_class": tiny_families.tokenizer("llava"), "data_collator": None}
    with pytest.raises(BadInput, match=r"processing_class is a .*, without an image processor; give AutoProcessor"):
        laver_trainer(tmp_path, given=given)


def test_a_folder_without_processor_is_never_written_without_a_word(tmp_path: Path) -> None:
    trainer = laver_trainer(tmp_path / "run", given={"data_collator": lambda items: {}})
    with pytest.warns(UserWarning, match="no processor"):
        trainer.save_model(str(tmp_path / "out"))


def refuse_at_the_save(model: Any) -> None:
    """Settings that transformers refuses when it writes them: a temperature without sampling."""
    model.generation_config.do_sample = False
    model.generation_config.temperature = 0.7


def test_a_configuration_that_cannot_be_saved_is_found_before_training(tmp_path: Path) -> None:
    model, _, _ = tiny_families.tiny("llava")
    refuse_at_the_save(model)
    trainer = laver_trainer(tmp_path, model)
    with pytest.raises(BadInput, match=r"temperature"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_under_lora_too_a_configuration_that_cannot_be_saved_is_found_before_training(tmp_path: Path) -> None:
    model, _, _ = tiny_families.tiny("llava")
    refuse_at_the_save(model)
    trainer = laver_trainer(tmp_path, get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])))
    with pytest.raises(BadInput, match=r"temperature"):
        trainer.train()


# The hub, by a stand-in for its two calls


class Hub:
    """Keeps a copy of each uploaded folder, without what the call ignores."""

    def __init__(self, root: Path) -> None:
        self.root, self.uploads = root, 0

    def create_repo(self, repo_id: str, **options: Any) -> RepoUrl:
        return RepoUrl(f"https://huggingface.co/someone/{repo_id}")

    def upload_folder(self, *, folder_path: str, ignore_patterns: Any = None, path_in_repo: str = ".", **options: Any) -> Any:
        from concurrent.futures import Future

        ignored = shutil.ignore_patterns(*(ignore_patterns or ()))
        shutil.copytree(folder_path, self.root / path_in_repo, ignore=ignored, dirs_exist_ok=True)
        self.uploads += 1
        done: Future[str] = Future()
        done.set_result("https://huggingface.co/someone/it/commit/1")
        return done if options.get("run_as_future") else done.result()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    stand_in = Hub(tmp_path / "hub")
    for module in ("transformers.trainer", "theodolite.training.hub"):
        monkeypatch.setattr(f"{module}.hf_api", lambda: stand_in)
    return stand_in


def test_what_push_to_hub_uploads_loads(tmp_path: Path, hub: Hub) -> None:
    trainer = laver_trainer(tmp_path / "run")
    trainer.train()
    trainer.push_to_hub()
    assert hub.uploads == 1
    assert loaded_elsewhere(hub.root) == "TheodoliteForConditionalGeneration LlavaProcessor True True"
    assert (hub.root / "README.md").is_file()
    loaded, _ = load_vlm(hub.root)
    trained = trainer.objective_module.vlm.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in loaded.state_dict().items())


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "end"])
def test_what_is_pushed_while_training_loads_and_checkpoints_are_whole(strategy: str, tmp_path: Path, hub: Hub) -> None:
    trainer = laver_trainer(tmp_path / "run", push_to_hub=True, hub_strategy=strategy, save_strategy="steps", save_steps=2)
    trainer.train()
    if strategy == "end":
        assert hub.uploads == 0
        trainer.save_model()
    assert loaded_elsewhere(hub.root) == "TheodoliteForConditionalGeneration LlavaProcessor True True"
    if strategy == "checkpoint":
        assert {"whole", "teacher.safetensors", "optimizer.pt"} <= {path.name for path in (hub.root / "last-checkpoint").iterdir()}


# LoRA on matrices that are tied


CASES = {
    "head": {"target_modules": ["q_proj", "lm_head"]},
    "table": {"target_modules": ["q_proj", "embed_tokens"]},
    "both": {"target_modules": ["lm_head", "embed_tokens"]},
    "both, kept tied": {"target_modules": ["embed_tokens"], "ensure_weight_tying": True},
    "dora": {"target_modules": ["q_proj", "lm_head"], "use_dora": True},
    "head saved": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "table saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "both saved": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    "neither": {"target_modules": ["q_proj"]},
}


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`", "ignore:Model with `tie_word_embeddings=True`")
@pytest.mark.parametrize("whole", [False, True], ids=["own weights", "given weights"])
@pytest.mark.parametrize("case", CASES)
def test_adapters_on_tied_matrices_are_saved_as_they_were_trained(case: str, whole: bool, tmp_path: Path) -> None:
    model, _, _ = tiny_families.tiny("llava")
    model.config.tie_word_embeddings = model.config.text_config.tie_word_embeddings = True
    model.tie_weights()
    torch.manual_seed(1)
    wrapped = get_peft_model(model, LoraConfig(r=4, **CASES[case]))
    laver = LaverConfig(head_hidden=16, adaptation=Adaptation())
    trainer = laver_trainer(tmp_path / "run", wrapped, laver, learning_rate=2e-2)
    trainer.train()
    if whole:
        state = {name: value.clone() for name, value in wrapped.state_dict().items()}
        trainer.write_vlm(tmp_path / "out", state)
    else:
        trainer.save_model(str(tmp_path / "out"))
    given = tiny_families.inputs("llava", model)
    loaded, _ = load_vlm(tmp_path / "out")
    with torch.no_grad():
        apart = (wrapped.eval()(**given).logits - loaded(**given).logits)[given["attention_mask"].bool()].abs().max()
    assert apart < 1e-4
    tied = case in ("neither", "both, kept tied", "both saved")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["tie_word_embeddings"] is tied
    assert loaded.lm_head.weight.data_ptr() == loaded.get_input_embeddings().weight.data_ptr() or not tied
    assert base_is_tied(wrapped), "the trained model itself is not changed"


def base_is_tied(wrapped: Any) -> bool:
    config = wrapped.get_base_model().config
    return bool(config.tie_word_embeddings and config.get_text_config().tie_word_embeddings)
