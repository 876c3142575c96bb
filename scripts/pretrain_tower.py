"""Makes the weights of the tower that has seen everything: `python scripts/pretrain_tower.py`, under 5 minutes on two cores.

The essay supposes an encoder in which every book is preserved somewhere. So the tower is trained, once, to have every
factor of the shapes world (independent prior), and the colour and shape of the easy-VQA training pictures, linearly
readable from its tokens: linear heads on the mean and the maximum over the tokens, cross-entropy, all factors alike. The
heads are thrown away. The easy-VQA test pictures are never seen.
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

from theodolite.models.construction.frontends import WEIGHTS, Pixels, image_processor
from theodolite.models.exported.conv_tower import ConvTower, ConvTowerConfig
from theodolite.worlds.easy_vqa.data import SPLITS
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.factors import Scenes
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World

NUM_PICTURES = 40_000
BATCH_SHAPES, BATCH_EASY = 104, 24
PEAK_RATE = 3e-3


def pooled(tokens: Tensor) -> Tensor:
    """Mean and maximum over the tokens: (batch, 2 x dim)."""
    return torch.cat([tokens.mean(1), tokens.amax(1)], dim=1)


class Lesson:
    """Pictures of a world with the levels of some factors, and one linear head for each."""

    def __init__(self, world: World, scenes: Scenes, factors: tuple[str, ...], width: int) -> None:
        self.pictures = world.render(scenes)
        self.levels = torch.from_numpy(np.stack([scenes.of_factor(name) for name in factors], axis=1).astype(np.int64))
        self.heads = nn.ModuleList(nn.Linear(width, len(world.space[name].values)) for name in factors)

    def loss(self, tower: ConvTower, pixels: Pixels, batch: int, rng: np.random.Generator) -> Tensor:
        index = rng.integers(0, len(self.pictures), batch)
        features = pooled(tower(pixels(self.pictures[index])).last_hidden_state)
        losses = [F.cross_entropy(head(features), self.levels[index, k]) for k, head in enumerate(self.heads)]
        return torch.stack(losses).sum()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs") / WEIGHTS)
    options = parser.parse_args()
    started = time.monotonic()
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    tower, pixels = ConvTower(ConvTowerConfig()), Pixels(image_processor())
    width = 2 * tower.config.hidden_size
    shapes, easy = Shapes(), EasyVQA()
    lessons = [
        (Lesson(shapes, shapes.sample(NUM_PICTURES, rng), shapes.space.names, width), BATCH_SHAPES),
        (Lesson(easy, easy.scenes(np.array(SPLITS["train"])), ("shape", "colour"), width), BATCH_EASY),
    ]
    weights = [*tower.parameters(), *(weight for lesson, _ in lessons for weight in lesson.heads.parameters())]
    optimizer = torch.optim.AdamW(weights, lr=PEAK_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=options.steps, pct_start=0.1)
    with Progress() as progress:
        task = progress.add_task("pretraining the tower", total=options.steps)
        for _ in range(options.steps):
            loss = torch.stack([lesson.loss(tower, pixels, batch, rng) for lesson, batch in lessons]).sum()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            schedule.step()
            progress.update(task, advance=1, description=f"pretraining the tower, loss {loss.item():.3f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tower.state_dict().items()}, options.out)
    digest = hashlib.sha256(options.out.read_bytes()).hexdigest()
    print(f"{options.out.name}: {options.out.stat().st_size:,} bytes, {time.monotonic() - started:.0f} s")
    print(f"SHA-256 {digest}")
    print("To ship it, put it into src/theodolite/models/weights and its hash into WEIGHTS_SHA256 of models/construction/frontends.py")


if __name__ == "__main__":
    main()
