"""Makes the weights of the tower `conv-unlabelled`: `python scripts/pretrain_unlabelled_tower.py`, minutes on one core.

The architecture of the tower `conv`, trained as an autoencoder on pictures of the shapes world (independent prior): a linear
layer maps each token to the pixels of its patch and of the eight around it, mean squared error. The linear layer is thrown
away. No label is used: neither the name nor the value of any factor.
"""

from __future__ import annotations

import argparse
import hashlib
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import Progress
from safetensors.torch import save_file
from torch import Tensor, nn

from theodolite.models.construction.frontends import PATCH, SIZE, UNLABELLED_WEIGHTS, Pixels, image_processor
from theodolite.models.exported.conv_tower import ConvTower, ConvTowerConfig
from theodolite.worlds.shapes.world import Shapes

NUM_PICTURES, BATCH = 20_000, 64
PEAK_RATE = 3e-3
AROUND = 3 * PATCH


def rebuilding_loss(tower: ConvTower, head: nn.Linear, pixels: Tensor) -> Tensor:
    """Mean squared error of the pixels around each token's patch, as the head rebuilds them; beyond the picture's edge they are 0."""
    rebuilt = head(tower(pixels).last_hidden_state)
    return F.mse_loss(rebuilt, F.unfold(pixels, AROUND, padding=PATCH, stride=PATCH).transpose(1, 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / UNLABELLED_WEIGHTS)
    options = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    tower, pixels = ConvTower(ConvTowerConfig()), Pixels(image_processor())
    head = nn.Linear(tower.config.hidden_size, 3 * AROUND**2)
    shapes = Shapes()
    pictures = shapes.render(shapes.sample(NUM_PICTURES, rng), SIZE)
    weights = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=options.steps, pct_start=0.1)
    with Progress() as progress:
        task = progress.add_task("pretraining the tower", total=options.steps)
        for _ in range(options.steps):
            loss = rebuilding_loss(tower, head, pixels(pictures[rng.integers(0, len(pictures), BATCH)]))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            progress.update(task, advance=1, description=f"pretraining the tower, loss {loss.item():.4f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tower.state_dict().items()}, options.out)
    digest = hashlib.sha256(options.out.read_bytes()).hexdigest()
    print(f"{options.out.name}: {options.out.stat().st_size:,} bytes, {time.monotonic() - started:.0f} s, last loss {loss.item():.4f}")
    print(f"SHA-256 {digest}")
    print("To ship it, put it into src/theodolite/models/weights and its hash into UNLABELLED_WEIGHTS_SHA256 of construction/frontends.py")


if __name__ == "__main__":
    main()
