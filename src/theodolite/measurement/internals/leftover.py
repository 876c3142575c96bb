"""What probes still decode of a factor after its erasure: fresh ones, trained on erased vectors and evaluated on held-out scenes.

An eraser guarantees nothing of held-out pictures, since it is fitted on some scenes, nor of nonlinear probes.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from theodolite.measurement.internals.erasing import Eraser
from theodolite.measurement.internals.identifiability import nonlinear
from theodolite.measurement.internals.probes import Task, best_of, probe
from theodolite.records.causal import ErasedProbe
from theodolite.stats.rates import clustered_rate

# Of a dimension's spread before. Below it is rounding of the erasure, which probes, standardising their inputs, would take for a signal.
LEAST_SPREAD = 1e-3


def erase_vectors(eraser: Eraser, vectors: Float[np.ndarray, "row dim"]) -> Float[np.ndarray, "row dim"]:
    """Vectors after erasure: of mean tokens, the means of the erased tokens, since an eraser is affine."""
    tokens = torch.from_numpy(vectors).float().to(eraser.mean.device)[:, None]
    return np.asarray(eraser(tokens, torch.zeros(len(tokens), dtype=torch.long))[:, 0].cpu().numpy())


def probe_erased(eraser: Eraser, vectors: Float[np.ndarray, "row dim"], task: Task, confidence: float) -> ErasedProbe:
    """Accuracy, 0 to 1, of probes before and after erasure, on the task's held-out rows."""
    erased = erase_vectors(eraser, vectors)
    erased[:, erased.std(axis=0) < LEAST_SPREAD * vectors.std(axis=0)] = 0
    training, scenes = task.training, task.scenes[~task.training]
    task = task.without_control()
    kernels = nonlinear(erased[training], erased[~training], task.folds).folds
    right = best_of(list(kernels.values()), task)

    return ErasedProbe(
        before=clustered_rate(probe(vectors, task).right, scenes, confidence),
        after=clustered_rate(probe(erased, task).right, scenes, confidence),
        nonlinear=clustered_rate(right, scenes, confidence),
        chance_frac=task.chance_frac,
        num_training_scenes=len(np.unique(task.scenes[training])),
    )
