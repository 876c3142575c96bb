"""Blind pairs of a picture folder: what is planted is found, on tiny real models and real files; what was embedded stays embedded."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from helpers.tiny_encoders import SIZE, clip, dino, made, saved
from helpers.tiny_families import TOWER, tiny
from theodolite.blind_pairs.embeddings import Embedder
from theodolite.blind_pairs.pictures import open_stored_picture
from theodolite.blind_pairs.vector_store import VectorStore
from theodolite.cli import app
from theodolite.commands.blind import BlindSearch, mine_blind_pairs
from theodolite.commands.progress import Steps
from theodolite.records.blind import BlindRecord
from theodolite.records.errors import BadInput
from theodolite.worlds.manifest.read import BadManifest, read_manifest, write_manifest

# First in a pair is the one whose name comes first; copy.png holds the bytes of plain0.png and comes before it.
PLANTED = {("copy.png", "deep/red0.png"), *((f"deep/red{at}.png", f"plain{at}.png") for at in range(1, 4))}


def noise(seed: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A CLIP whose patches do not see red and blue, and a DINOv2 that sees all."""
    folder = tmp_path_factory.mktemp("models")
    blind = clip()
    blind.vision_model.embeddings.patch_embedding.weight.data[:, [0, 2]] = 0
    return saved(blind, folder / "clip"), saved(dino(), folder / "dino")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pairs alike in green alone, a pair alike in all but a little, and files that are no use."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "deep").mkdir()
    for at in range(4):
        plain = noise(at)
        other = noise(at + 50)
        other[..., 1] = plain[..., 1]
        Image.fromarray(plain).save(folder / f"plain{at}.png")
        Image.fromarray(other).save(folder / "deep" / f"red{at}.png")
    Image.fromarray(noise(7)).save(folder / "twin1.png")
    Image.fromarray(np.clip(noise(7).astype(int) + 1, 0, 255).astype(np.uint8)).save(folder / "twin2.png")
    for seed in (8, 9):
        Image.fromarray(noise(seed)).save(folder / f"other{seed}.png")
    (folder / "copy.png").write_bytes((folder / "plain0.png").read_bytes())
    (folder / "cut.png").write_bytes((folder / "plain0.png").read_bytes()[:1500])
    (folder / "text.png").write_text("no picture at all")
    (folder / "notes.txt").write_text("not looked at")
    Image.fromarray(noise(10)).save(folder / ".hidden.png")
    return folder


def mine(
    pictures: Path, models: tuple[str, str], out: Path, vectors: Path, search: BlindSearch | None = None, batch: int = 4
) -> BlindRecord:
    found = search or BlindSearch(high=0.999, low=0.9)
    steps = Steps(Console(file=io.StringIO()))
    options: dict[str, Any] = {"device": "cpu", "dtype": "float32", "overwrite": True}
    return mine_blind_pairs(pictures, *models, out, found, batch=batch, vectors=vectors, steps=steps, **options)


@pytest.fixture(scope="module")
def mined(pictures: Path, models: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BlindRecord]:
    """The folder of a search, its vectors beside it, and its record."""
    home = tmp_path_factory.mktemp("mined")
    return home / "out", mine(pictures, models, home / "out", home / "vectors")


def test_an_encoder_without_a_colour_is_blind_to_exactly_the_planted_pairs(mined: tuple[Path, BlindRecord]) -> None:
    record = mined[1]
    assert {(pair.first, pair.second) for pair in record.pairs} == PLANTED
    assert (record.same.pooling, record.other.pooling, record.same.dim, record.other.dim) == ("image_embeds", "pooler_output", 12, 16)
    assert (record.num_pictures, record.num_copies, record.num_zero, record.num_compared) == (12, 1, 0, 66)
    assert record.left_out == {"not a picture": ("text.png",), "truncated picture": ("cut.png",)}
    assert (record.num_same, record.num_qualifying) == (5, 4)  # the twins are the same to both
    assert all(pair.same_cos > 0.999999 for pair in record.pairs) and not record.nearest
    margins = [pair.same_cos - pair.other_cos for pair in record.pairs]
    assert margins == sorted(margins, reverse=True)


def test_what_is_written_is_a_manifest_once_it_is_labelled(pictures: Path, mined: tuple[Path, BlindRecord]) -> None:
    out, record = mined
    assert BlindRecord.model_validate_json((out / "blind.json").read_text()) == record
    with pytest.raises(BadManifest, match="none of the 4 rows"):
        read_manifest(out / "manifest.jsonl")
    rows = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    for row, pair in zip(rows, record.pairs, strict=True):
        assert (out / row["picture"]).read_bytes() == (pictures / pair.first).read_bytes()
        assert (out / row["edited"]).read_bytes() == (pictures / pair.second).read_bytes()
        assert (row["_same_cos"], row["_other_cos"]) == (pair.same_cos, pair.other_cos)
        row |= {"factor": "tint", "from": "warm", "to": "cold", "question": "is it warm?", "choices": ["yes", "no"]}
        row |= {"answer_before": "yes", "answer_after": "no"}
    write_manifest(out / "labelled.jsonl", rows)
    read = read_manifest(out / "labelled.jsonl")
    assert (len(read.gallery.table), read.gallery.kind, read.faults) == (4, "matched", ())
    with Image.open(out / "sheet.png") as sheet:
        assert sheet.size == (2 * 430 + 10, 2 * 242 + 10)


def test_a_factor_left_blank_is_refused_too(mined: tuple[Path, BlindRecord]) -> None:
    row = json.loads((mined[0] / "manifest.jsonl").read_text().splitlines()[0])
    filled = {"question": "what is it?", "choices": ["a", "b"], "answer_before": "a", "answer_after": "a"}
    write_manifest(mined[0] / "half.jsonl", [row | filled])
    with pytest.raises(BadManifest, match="blank"):
        read_manifest(mined[0] / "half.jsonl")


def test_a_second_search_embeds_nothing_and_one_that_was_cut_off_goes_on(
    pictures: Path, models: tuple[str, str], mined: tuple[Path, BlindRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = mined[1]
    seen: list[int] = []
    own = VectorStore.add

    def add(store: VectorStore, keys: Any, vectors: np.ndarray) -> None:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(len(keys))
        own(store, keys, vectors)

    monkeypatch.setattr(VectorStore, "add", add)
    with pytest.raises(KeyboardInterrupt):
        mine(pictures, models, tmp_path / "resumed", tmp_path / "two")
    assert seen == [4, 4] and not (tmp_path / "resumed").exists()
    monkeypatch.setattr(VectorStore, "add", own)
    assert mine(pictures, models, tmp_path / "resumed", tmp_path / "two") == straight
    stored = [sorted(folder.glob("*/vectors.npy")) for folder in (mined[0].parent / "vectors", tmp_path / "two")]
    assert [path.read_bytes() for path in stored[0]] == [path.read_bytes() for path in stored[1]] and len(stored[0]) == 2
    monkeypatch.setattr(VectorStore, "add", lambda *given: pytest.fail("embedded again"))
    assert mine(pictures, models, tmp_path / "again", tmp_path / "two") == straight
    files = [(out / "blind.json").read_bytes() for out in (mined[0], tmp_path / "resumed", tmp_path / "again")]
    assert files[0] == files[1] == files[2]


def test_where_nothing_qualifies_it_says_so_and_names_the_nearest(
    pictures: Path, models: tuple[str, str], mined: tuple[Path, BlindRecord], tmp_path: Path
) -> None:
    given = ["blind", str(pictures), "--same", models[1], "--different", models[0], "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*given, "--vectors", str(mined[0].parent / "vectors"), "--high", "1", "--low", "-1"])
    assert done.exit_code == 0, done.output
    assert "no pair qualifies" in done.output and "The pairs nearest to the thresholds" in done.output
    record = BlindRecord.model_validate_json((tmp_path / "out" / "blind.json").read_text())
    assert not record.pairs and len(record.nearest) == 5
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["blind.json", "sheet.png"]


def test_folders_and_models_that_cannot_be_used_are_refused(pictures: Path, models: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    lone = tmp_path / "lone"
    lone.mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(1)).save(lone / name)
    for folder, message in ((tmp_path / "none", "is not a folder"), (tmp_path / "empty", "has no pictures"), (lone, "a pair needs two")):
        with pytest.raises(BadInput, match=message):
            mine(folder, models, tmp_path / "out", tmp_path / "vectors")
    with pytest.raises(BadInput, match="the next search would include its output"):
        mine(pictures, models, pictures / "out", tmp_path / "vectors")
    with pytest.raises(BadInput, match="are the same encoder"):
        mine(pictures, (models[0], models[0]), tmp_path / "out", tmp_path / "vectors")
    with pytest.raises(BadInput, match="no vision model can be loaded"):
        mine(pictures, (str(tmp_path / "nothing"), models[1]), tmp_path / "out", tmp_path / "vectors")


def tensors(pictures: list[np.ndarray]) -> torch.Tensor:
    """What the image processor of `saved` makes of pictures of 32 x 32."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("kind", ["clip", "dino", "siglip", "headless siglip", "headless vit", "resnet"])
def test_a_vector_is_what_its_pooling_says(kind: str, tmp_path: Path) -> None:
    tower = {**TOWER, "image_size": 32}
    makers = {
        "clip": clip,
        "dino": dino,
        "siglip": lambda: made(hf.SiglipVisionModel, hf.SiglipVisionConfig(**tower)),
        "headless siglip": lambda: made(hf.SiglipVisionModel, hf.SiglipVisionConfig(**tower, vision_use_head=False)),
        # As DINO and MAE checkpoints come: AutoModel would add a pooler of noise.
        "headless vit": lambda: made(lambda config: hf.ViTModel(config, add_pooling_layer=False), hf.ViTConfig(**tower)),
        "resnet": lambda: made(hf.ResNetModel, hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])),
    }
    model = makers[kind]()
    embedder = Embedder(saved(model, tmp_path))
    given = [noise(1), noise(2), noise(3)]
    pixels = tensors(given)
    with torch.no_grad():
        truth, pooling = {
            "clip": lambda: (model.get_image_features(pixels).pooler_output, "image_embeds"),
            "dino": lambda: (model(pixels).last_hidden_state[:, 0], "pooler_output"),
            "siglip": lambda: (model(pixels).pooler_output, "pooler_output"),
            "headless siglip": lambda: (model(pixels).last_hidden_state.mean(1), "mean of tokens"),
            "headless vit": lambda: (model(pixels).last_hidden_state[:, 0], "class token"),
            "resnet": lambda: (model(pixels).last_hidden_state.mean((2, 3)), "pooler_output"),
        }[kind]()
    assert embedder.pooling == pooling
    np.testing.assert_allclose(embedder([Image.fromarray(each) for each in given]), truth.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "gemma3"])
def test_the_encoder_of_a_vlm_is_taken_from_before_its_connector(family: str, tmp_path: Path) -> None:
    model, image_processor, words = tiny(family)
    for part in (model, image_processor, words):
        part.save_pretrained(tmp_path)
    embedder = Embedder(str(tmp_path))
    sizes = [(40, 40), (24, 60), (40, 40)]  # some alike, some not
    given = [Image.fromarray(noise(at, *size)) for at, size in enumerate(sizes)]
    found = embedder(given)
    assert (embedder.pooling, embedder.model_type) == ("mean of the encoder's tokens", family)
    np.testing.assert_allclose(found, np.concatenate([embedder([each]) for each in given]), atol=1e-5)
    assert found.shape[1] == 16 and np.abs(found[0] - found[2]).max() > 1e-3
    if family == "llava":
        pixels = image_processor(given, return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            states = model.model.vision_tower(pixels, output_hidden_states=True).hidden_states
        truth = states[model.config.vision_feature_layer][:, 1:].mean(1)
        np.testing.assert_allclose(found, truth.numpy(), atol=1e-5)


def test_models_whose_vectors_would_be_noise_are_refused(tmp_path: Path) -> None:
    whole = dino()
    lacking = {name: value for name, value in whole.state_dict().items() if "layer.0.norm1" not in name}
    saved(whole, tmp_path / "lacking")
    whole.save_pretrained(tmp_path / "lacking", state_dict=lacking)
    with pytest.raises(BadInput, match="lacks 2 of its weights"):
        Embedder(str(tmp_path / "lacking"))
    random = saved(made(hf.ViTMAEModel, hf.ViTMAEConfig(image_size=32, **TOWER)), tmp_path / "mae")
    with pytest.raises(BadInput, match="another vector each time"):
        Embedder(random)
    whole.layernorm.weight.data[0] = float("nan")
    with pytest.raises(BadInput, match="NaN or infinity for a picture in float32"):
        Embedder(saved(whole, tmp_path / "nan"))
    (tmp_path / "nan" / "preprocessor_config.json").write_text('{"image_processor_type": "DINOv3ViTImageProcessor"}')
    if not hf.utils.is_torchvision_available():
        with pytest.raises(BadInput, match="has no Pillow backend"):
            Embedder(str(tmp_path / "nan"))
    with pytest.raises(BadInput, match="device 'tpu' is not available"):
        Embedder(random, device="tpu")


def test_the_identity_changes_with_weights_settings_and_precision_and_not_with_the_folder(tmp_path: Path) -> None:
    first = Embedder(saved(dino(), tmp_path / "a")).identity
    assert Embedder(saved(dino(), tmp_path / "b")).identity == first
    assert Embedder(str(tmp_path / "a"), dtype="bfloat16").identity != first
    other = dino()
    other.config.layer_norm_eps = 1e-3
    assert Embedder(saved(other, tmp_path / "c")).identity != first
    other = dino()
    other.layernorm.bias.data[0] += 1
    assert Embedder(saved(other, tmp_path / "d")).identity != first
    hf.SiglipImageProcessorPil(size=SIZE, image_mean=[0.4] * 3, image_std=[0.5] * 3).save_pretrained(tmp_path / "b")
    assert Embedder(str(tmp_path / "b")).identity != first


def test_a_store_drops_what_was_cut_off_and_keeps_the_rest(tmp_path: Path) -> None:
    keys = [f"{number:064x}" for number in range(5)]
    vectors = np.arange(15, dtype=np.float32).reshape(5, 3)
    for torn in ("row", "name", "length", "nothing"):
        folder = tmp_path / torn
        store = VectorStore(folder, 3)
        store.add(keys[:3], vectors[:3])
        with pytest.raises(BadInput, match="another run is writing"):
            VectorStore(folder, 3)
        store.close()
        whole = (folder / "vectors.npy").read_bytes()
        if torn == "row":
            (folder / "vectors.npy").write_bytes(whole + b"\0" * 5)
        elif torn == "name":
            (folder / "vectors.npy").write_bytes(whole + vectors[3:].tobytes())
            (folder / "pictures.txt").write_text("".join(f"{key}\n" for key in keys[:3]) + keys[3][:9])
        elif torn == "length":
            (folder / "vectors.npy").write_bytes(whole + vectors[3:4].tobytes())
            (folder / "pictures.txt").write_text("".join(f"{key}\n" for key in keys[:4]))
        again = VectorStore(folder, 3)
        kept = 4 if torn == "length" else 3
        assert len(again) == kept and (keys[3] in again) == (kept == 4)
        again.add(keys[kept:], vectors[kept:])
        again.close()
        assert np.load(folder / "vectors.npy").tolist() == vectors.tolist()
        assert again.vectors()[again.rows(keys[::-1])].tolist() == vectors[::-1].tolist()
    with pytest.raises(BadInput, match="does not hold vectors of 4 numbers"):
        VectorStore(tmp_path / "row", 4)


def test_pictures_lie_upright_and_transparent_ones_on_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    assert np.asarray(open_stored_picture(tmp_path / "clear.png")).min() == 255
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise(1, 20, 30)).save(tmp_path / "turned.jpg", exif=turned)
    assert open_stored_picture(tmp_path / "turned.jpg").size == (20, 30)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.png").symlink_to(tmp_path / "clear.png")
    assert open_stored_picture(tmp_path / "link" / "a.png").size == (6, 4)
