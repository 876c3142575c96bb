"""Loads exported models and writes down what they give: `tests/models/test_export.py` runs this in a process that cannot import theodolite.

In each folder below the one given: `model`, and `asked.pt` with batches; `answered.pt` comes beside them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoModelForImageTextToText

NEW_TOKENS = 8


def attempt(kind: Any, folder: Path, **options: Any) -> str:
    """What loading says if it raises; else nothing."""
    try:
        kind.from_pretrained(folder, **options)
    except (ValueError, StrictDataclassError) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def answer(folder: Path) -> dict[str, Any]:
    asked = torch.load(folder / "asked.pt")
    said = {
        "auto": attempt(AutoModelForImageTextToText, folder / "model"),
        "stock": attempt(getattr(transformers, asked["stock class"]), folder / "model"),
        "flash": attempt(AutoModelForImageTextToText, folder / "model", trust_remote_code=True, attn_implementation="flash_attention_2"),
    }
    model = AutoModelForImageTextToText.from_pretrained(folder / "model", trust_remote_code=True)
    model.generation_config.eos_token_id = None
    with torch.inference_mode():
        logits = {name: model(**asked[name]).logits for name in ("right", "left", "text")}
        options = {"max_new_tokens": NEW_TOKENS, "do_sample": False, "suppress_tokens": [model.config.image_token_id]}
        new = model.generate(**asked["prompts"], **options)[:, asked["prompts"]["input_ids"].shape[1] :]
    model.save_pretrained(folder / "again")
    again = AutoModelForImageTextToText.from_pretrained(folder / "again", trust_remote_code=True)
    same = all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    kind = f"{type(model).__module__}.{type(model).__name__}"
    return {"said": said, "logits": logits, "new": new, "class": kind, "saved again": same}


def main(root: str) -> None:
    for folder in sorted(Path(root).iterdir()):
        torch.save(answer(folder), folder / "answered.pt")
    assert not [name for name, module in sys.modules.items() if name.startswith("theodolite") and module is not None]
