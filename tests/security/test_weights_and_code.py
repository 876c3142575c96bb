"""Models and checkpoints from elsewhere: no pickle is run, and no code of a model's folder, whatever its files are called."""

from __future__ import annotations

import ast
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers import REPOSITORY
from helpers.tiny_llava import tiny_vlm
from helpers.tiny_training import laver_trainer
from theodolite.blind_pairs.vector_store import VectorStore
from theodolite.models.construction.encoders import encoder_named
from theodolite.models.construction.join import language_model_named
from theodolite.models.export import export_vlm
from theodolite.models.load import load_vlm
from theodolite.records.errors import BadInput

SOURCE = REPOSITORY / "src"
# Weights of a package whose file must have a known SHA-256; read with weights_only.
CHECKED = "models/construction/lite0.py"
CALLS = re.compile(r"torch\.load\(|\bpickle\b|joblib|cloudpickle|np\.load\(|\bshelve\b|\bmarshal\b")
FROM_PRETRAINED = re.compile(r"(Auto\w+|kind)\.from_pretrained")
# Names of options without a model's code and without pickles; `options` begins with one of them.
SAFE_OPTIONS = {"NO_CODE", "SAFE_WEIGHTS", "options"}


class Touch:
    """What a pickle can hold: a call of any function when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def torch_file(path: Path, mark: Path) -> None:
    """A file as torch.save writes it, whose pickle touches `mark`."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Touch(mark), protocol=2))
        file.writestr("archive/version", "3")


def test_the_malicious_file_would_run(tmp_path: Path) -> None:
    torch_file(tmp_path / "x.bin", tmp_path / "run")
    torch.load(tmp_path / "x.bin", weights_only=False)
    assert (tmp_path / "run").exists()


def test_the_source_loads_no_pickle_and_asks_transformers_for_none() -> None:
    for path in sorted(SOURCE.rglob("*.py")):
        name, lines = path.relative_to(SOURCE / "theodolite").as_posix(), path.read_text("utf-8").splitlines()
        code = "\n".join(line.partition("  # ")[0] for line in lines if not line.lstrip().startswith("#"))
        for call in CALLS.finditer(code):
            rest = code[call.start() : call.start() + 200]
            is_checked = name == CHECKED and "weights_only=True" in rest
            assert is_checked or "allow_pickle=False" in rest or f"no {call.group()}" in rest, f"{name}: {rest[:80]}"
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.Call) and FROM_PRETRAINED.fullmatch(ast.unparse(node.func)):
                unpacked = {ast.unparse(option.value) for option in node.keywords if option.arg is None}
                assert unpacked & SAFE_OPTIONS, f"{name}: {ast.unparse(node)}"
        assert "trust_remote_code=True" not in "".join(re.sub(r'"""(.|\n)*?"""|".*?"', "", code)), name


@pytest.mark.parametrize("load", ["vlm", "language", "encoder"])
def test_weights_in_a_pickle_are_refused_unread(tmp_path: Path, load: str) -> None:
    export_vlm(*tiny_vlm(), tmp_path / "model")
    for path in (tmp_path / "model").glob("*.safetensors*"):
        path.unlink()
    torch_file(tmp_path / "model" / "pytorch_model.bin", tmp_path / "run")
    loaders = {"vlm": load_vlm, "language": language_model_named, "encoder": lambda name: encoder_named(name)}
    if load != "vlm":
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        part = config["text_config" if load == "language" else "vision_config"]
        kinds = {
            "language": {"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
            "encoder": {"model_type": "siglip_vision_model"},
        }
        (tmp_path / "model" / "config.json").write_text(json.dumps({**part, **kinds[load]}))
    with pytest.raises(BadInput, match=r"can be loaded from"):
        loaders[load](str(tmp_path / "model"))
    assert not (tmp_path / "run").exists()


def test_code_in_a_models_folder_is_neither_run_nor_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(prompt: str = "") -> str:
        raise AssertionError(f"the terminal was asked: {prompt}")

    monkeypatch.setattr("builtins.input", asked)
    home = tmp_path / "model"
    home.mkdir()
    code = f"from pathlib import Path\nPath({str(tmp_path / 'run')!r}).touch()\n"
    (home / "own.py").write_text(code)
    maps = {"AutoConfig": "own.Config", "AutoModel": "own.Model", "AutoModelForCausalLM": "own.Model", "AutoTokenizer": ["own.T", None]}
    (home / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": maps}))
    (home / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["own.T", None]}}))
    (home / "preprocessor_config.json").write_text(json.dumps({"auto_map": {"AutoImageProcessor": "own.P"}}))
    for load in (load_vlm, language_model_named, encoder_named):
        with pytest.raises(BadInput, match=r"can be loaded from"):
            load(str(home))
    assert not (tmp_path / "run").exists()


def test_vectors_of_a_blind_search_are_no_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "vectors.npy", np.array([Touch(tmp_path / "run")], dtype=object), allow_pickle=True)
    (tmp_path / "pictures.txt").write_bytes(b"a\n")
    with pytest.raises(BadInput, match="does not hold vectors"):
        VectorStore(tmp_path, 2).vectors()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"])
def test_a_pickle_in_a_checkpoint_is_not_run_on_resume(tmp_path: Path, name: str) -> None:
    trainer = laver_trainer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1)
    trainer.train()
    checkpoint = tmp_path / "checkpoint-1"
    assert (checkpoint / name).is_file() or name == "training_args.bin"
    torch_file(checkpoint / name, tmp_path / "run")
    resumed = laver_trainer(tmp_path, max_steps=2)
    if name == "training_args.bin":  # which nothing reads
        resumed.train(resume_from_checkpoint=str(checkpoint))
    else:
        with pytest.raises((BadInput, pickle.UnpicklingError, RuntimeError)):
            resumed.train(resume_from_checkpoint=str(checkpoint))
    assert not (tmp_path / "run").exists()
