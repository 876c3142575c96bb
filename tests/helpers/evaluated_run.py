"""Evaluations and predictions of 1 and of 5 examples, for a launcher: `torchrun evaluated_run.py FOLDER` writes their metrics."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from helpers.tiny_training import examples, laver_trainer
from theodolite.training.launch import leave_together


def main() -> None:
    folder = Path(sys.argv[1])
    trainer = laver_trainer(folder / "run")
    assert trainer.args.world_size == 2
    for number in (1, 5):
        metrics = trainer.evaluate(examples(number, first=10))
        predicted = trainer.predict(examples(number, first=10)).metrics
        assert all(predicted[f"test_{name[5:]}"] == value for name, value in metrics.items() if "loss" in name or "cosine" in name)
        if trainer.args.process_index == 0:
            (folder / f"{number}.json").write_text(json.dumps(metrics))
    del trainer
    leave_together()


if __name__ == "__main__":
    main()
