"""The small LLaVA: its front ends, its tokenizer, and that what is saved loads elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression

from helpers.tiny_llava import WORLD, tiny_vlm
from theodolite.models.construction import frontends
from theodolite.models.construction.frontends import Pixels, image_processor, pretrained_tower, raw_patches
from theodolite.models.conversation_tokenizer import QuestionTokenizer
from theodolite.models.export import export_vlm
from theodolite.models.families import UnknownFamily, family_of
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World


def features(world: World, scenes: object) -> np.ndarray:
    """Mean and maximum over the tower's tokens, scaled to unit variance."""
    pixels, tower = Pixels(image_processor()), pretrained_tower().eval()
    pictures = world.render(scenes)  # type: ignore[arg-type]
    with torch.inference_mode():
        parts = [tower(pixels(pictures[at : at + 500])).last_hidden_state for at in range(0, len(pictures), 500)]
    tokens = torch.cat(parts)
    pooled = torch.cat([tokens.mean(1), tokens.amax(1)], dim=1).numpy()
    return (pooled - pooled.mean(0)) / pooled.std(0)


def linear_accuracy(seen: np.ndarray, levels: np.ndarray, num_train: int) -> float:
    probe = LogisticRegression(max_iter=400, C=1.0).fit(seen[:num_train], levels[:num_train])
    return float(probe.score(seen[num_train:], levels[num_train:]))


def test_every_factor_of_shapes_is_linearly_readable_from_the_tower() -> None:
    world = Shapes()
    scenes = world.sample(4000, np.random.default_rng(101))
    seen = features(world, scenes)
    read = {name: linear_accuracy(seen, scenes.of_factor(name), 3000) for name in world.space.names}
    assert min(read.values()) >= 0.95, read


def test_shape_and_colour_of_unseen_easy_vqa_pictures_are_linearly_readable_from_the_tower() -> None:
    world = EasyVQA()
    scenes = world.scenes(np.concatenate([np.arange(1500), np.arange(4000, 5000)]))
    seen = features(world, scenes)
    read = {name: linear_accuracy(seen, scenes.of_factor(name), 1500) for name in ("shape", "colour")}
    assert min(read.values()) >= 0.95, read


def test_shuffled_labels_are_not_readable() -> None:
    world = Shapes()
    scenes = world.sample(1500, np.random.default_rng(7))
    shuffled = np.random.default_rng(8).permutation(scenes.of_factor("shape"))
    assert linear_accuracy(features(world, scenes), shuffled, 1000) < 0.35


def test_the_towers_weights_are_small_and_checked_by_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(frontends.__file__).parents[1] / "weights" / frontends.WEIGHTS
    assert path.stat().st_size < 1_500_000
    monkeypatch.setattr(frontends, "WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(frontends.DamagedWeights, match="SHA-256"):
        pretrained_tower()


def test_raw_patches_are_the_pixels() -> None:
    pictures = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = raw_patches()(pictures).last_hidden_state
    patches = pictures.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).reshape(2, 64, 192)
    # The stock class ends with a layer norm, which keeps a patch up to its mean and scale.
    expected = torch.nn.functional.layer_norm(patches, (192,), eps=raw_patches().config.layer_norm_eps)
    hidden = raw_patches()(pictures, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden, patches, atol=1e-5, rtol=1e-5)


def test_pixels_equal_the_image_processor() -> None:
    pictures = WORLD.render(WORLD.sample(3, np.random.default_rng(3)))
    stock = image_processor()([Image.fromarray(picture) for picture in pictures], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(Pixels(image_processor())(pictures), stock, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="render them at that size"):
        Pixels(image_processor())(pictures[:, :32, :32])


def test_the_tokenizer_knows_every_word_and_nothing_else() -> None:
    _, processor = tiny_vlm()
    unknown = processor.tokenizer.unk_token_id
    assert all(unknown not in processor.tokenizer(text)["input_ids"] for text in WORLD.texts)
    assert processor.tokenizer("rhombus")["input_ids"] == [unknown]


def test_prompts_split_at_the_picture_and_equal_the_processors_own() -> None:
    _, processor = tiny_vlm()
    turn = QuestionTokenizer(processor, 64).tokenize("what is its shape?", "round")
    picture = Image.fromarray(WORLD.render(WORLD.sample(1, np.random.default_rng(0)))[0])
    messages = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is its shape?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "round"}]},
    ]
    text = processor.apply_chat_template(messages, tokenize=False)
    whole = processor(text=text, images=picture, return_tensors="pt")["input_ids"][0].tolist()
    assert list(turn.prefix + turn.question + turn.answer) == whole
    assert turn.prefix == (processor.image_token_id,) * 64
    assert processor.tokenizer.decode(turn.answer) == "round </s>"


def test_an_answer_ends_with_the_end_token_whatever_the_template_writes() -> None:
    _, processor = tiny_vlm()
    expected = QuestionTokenizer(processor, 64).tokenize("what is its shape?", "round")
    processor.chat_template = processor.chat_template.replace("</s>", "")
    assert QuestionTokenizer(processor, 64).tokenize("what is its shape?", "round") == expected
    processor.chat_template = processor.chat_template.replace("{% endfor %}{{", "{% endfor %}\n{{")
    processor.tokenizer.eos_token = None
    with pytest.raises(BadInput, match="neither chat template nor tokenizer has an end token"):
        QuestionTokenizer(processor, 64).tokenize("what is its shape?", "round")


def test_an_image_processor_that_does_more_is_refused() -> None:
    other = image_processor()
    other.do_normalize = False
    with pytest.raises(BadInput, match="does more to a picture"):
        Pixels(other)
    other.size = {"shortest_edge": 64}
    with pytest.raises(BadInput, match="one square size"):
        Pixels(other)


def test_a_processor_without_a_chat_template_is_refused() -> None:
    _, processor = tiny_vlm()
    processor.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        QuestionTokenizer(processor, 64)


@pytest.mark.parametrize("frontend", ["conv", "patches"])
def test_a_saved_model_answers_alike_where_theodolite_is_not_imported(tmp_path: Path, frontend: str) -> None:
    model, processor = tiny_vlm(frontend=frontend)
    export_vlm(model, processor, tmp_path / "model")
    picture = WORLD.render(WORLD.sample(1, np.random.default_rng(0)))[0]
    Image.fromarray(picture).save(tmp_path / "picture.png")
    code = f"""
import sys, torch
sys.modules["theodolite"] = None  # importing it would fail
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
trust = {frontend == "conv"}
model = AutoModelForImageTextToText.from_pretrained("model", trust_remote_code=trust)
processor = AutoProcessor.from_pretrained("model")
messages = [{{"role": "user", "content": [{{"type": "image"}}, {{"type": "text", "text": "what is its shape?"}}]}}]
text = processor.apply_chat_template(messages, add_generation_prompt=True)
inputs = processor(text=text, images=Image.open("picture.png"), return_tensors="pt")
with torch.inference_mode():
    torch.save(model(**inputs).logits, "logits.pt")
    print(processor.decode(model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, inputs["input_ids"].shape[1]:]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip()
    turn = QuestionTokenizer(processor, 64).tokenize("what is its shape?", "round")
    ids = torch.tensor([turn.prefix + turn.question])
    with torch.inference_mode():
        mine = model.eval()(input_ids=ids, pixel_values=Pixels(processor.image_processor)(picture[None])).logits
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), mine, atol=1e-5, rtol=1e-5)


def test_loading_gives_the_same_weights_and_says_what_is_wrong(tmp_path: Path) -> None:
    model, processor = tiny_vlm()
    export_vlm(model, processor, tmp_path / "model")
    loaded, _ = load_vlm(tmp_path / "model")
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in model.state_dict().items())
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=r"holds no config\.json"):
        load_vlm(tmp_path / "empty")
    assert load_vlm(tmp_path)[0].config.model_type == "llava"  # the folder of a run, which holds the model's
    with pytest.raises(BadInput, match="device 'cuda:99' is not available"):
        load_vlm(tmp_path / "model", device="cuda:99")
    with pytest.raises(BadInput, match="no model can be loaded"):
        load_vlm(tmp_path / "nowhere")
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadInput, match=r"no model can be loaded from .*model \(SafetensorError: .*give the name of a whole"):
        load_vlm(tmp_path / "model")
    for config in ('{"model_type": "nonsense"}', "{}"):
        (tmp_path / "model" / "config.json").write_text(config)
        with pytest.raises(BadInput, match=r"no model can be loaded from .*model \(ValueError: .*give the name of a whole"):
            load_vlm(tmp_path / "model")


def test_families_name_parts_that_are_there_and_others_are_refused() -> None:
    model, _ = tiny_vlm()
    family = family_of(model.config)
    for path in (family.encoder, *family.connector, family.language_model, family.lm_head):
        assert sum(weight.numel() for weight in model.get_submodule(path).parameters()) > 0
    with pytest.raises(UnknownFamily, match=r"'bert' are not in the families table; it holds .*llava"):
        family_of(type("Config", (), {"model_type": "bert"})())


def test_only_connector_and_decoder_want_gradients_and_seeds_decide_the_weights() -> None:
    model, _ = tiny_vlm(seed=1)
    assert not any(weight.requires_grad for weight in model.model.vision_tower.parameters())
    assert all(weight.requires_grad for weight in model.model.language_model.parameters())
    same, other = tiny_vlm(seed=1)[0].state_dict(), tiny_vlm(seed=2)[0].state_dict()
    assert all(torch.equal(value, same[name]) for name, value in model.state_dict().items())
    assert not torch.equal(model.lm_head.weight, other["lm_head.weight"])
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
