"""Picture encoders of two layers with random weights, on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers as hf

from helpers.tiny_families import TEXT, TOWER, spread

SIZE = {"height": 32, "width": 32}


def made(kind: Any, config: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = kind(config)
        for weight in model.parameters():
            if weight.ndim > 0:
                spread(weight.data)
    return model.eval()


def saved(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    hf.SiglipImageProcessorPil(size=SIZE, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_convert_rgb=True).save_pretrained(folder)
    return str(folder)


def clip() -> Any:
    text = {**TEXT, "num_hidden_layers": 1}
    return made(hf.CLIPModel, hf.CLIPConfig(text_config=text, vision_config={**TOWER, "image_size": 32}, projection_dim=12))


def dino() -> Any:
    return made(hf.Dinov2Model, hf.Dinov2Config(image_size=32, **{**TOWER, "mlp_ratio": 2}), seed=1)
