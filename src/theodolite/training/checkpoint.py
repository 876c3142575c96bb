"""Checkpoints of trained parameters and buffers; a marker file, written last, identifies complete ones by the sizes of their files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from theodolite.records.errors import BadInput
from theodolite.records.folder import write_whole
from theodolite.records.reading import BadJson, parse_json

WEIGHTS = "model.safetensors"
# LaVer's centre in checkpoints of older versions: it lies beside the teacher now.
OLD_CENTRE = "objective.centre.value"
# Marker of a complete checkpoint.
WHOLE = "whole"


def trained_state(objective_module: nn.Module) -> dict[str, Tensor]:
    """Trained parameters and all buffers by name. Frozen parameters are left out: the base model has them."""
    frozen = {name for name, parameter in objective_module.named_parameters(remove_duplicate=False) if not parameter.requires_grad}
    seen: set[int] = set()
    state = {}
    for name, value in objective_module.state_dict(keep_vars=True).items():
        if name not in frozen and id(value) not in seen:  # tied weights are one tensor under two names
            seen.add(id(value))
            state[name] = value.detach()
    return state


def save_trained(objective_module: nn.Module, folder: Path) -> None:
    """Writes the trained state into a checkpoint folder."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous().cpu() for name, value in trained_state(objective_module).items()}
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})


def load_trained(objective_module: nn.Module, folder: Path) -> None:
    """Loads the trained state of a checkpoint in place. Raises `BadInput` if other parameters are trained now, or on an older version's."""
    saved, state = read_tensors(folder / WEIGHTS), trained_state(objective_module)
    if (OLD_CENTRE in saved) > (OLD_CENTRE in state):
        raise BadInput(
            f"{folder} was written by a version of theodolite that kept LaVer's centre among the weights, and cannot be resumed; end the "
            "run with that version, or start it over"
        )
    if saved.keys() != state.keys():
        changed = sorted(saved.keys() ^ state.keys())
        raise BadInput(f"{folder} was written by a run that trained other parameters ({changed[0]} ...); resume with the same recipe")
    for name, value in saved.items():
        if value.shape != state[name].shape:
            raise BadInput(f"{folder} holds {name} of another size than the model has; resume with the same recipe")
    with torch.no_grad():
        for name, value in saved.items():
            state[name].copy_(value)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name. Raises `BadInput` if it cannot be read or is damaged."""
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path} cannot be read as safetensors ({error}); remove {path.parent}, and the run goes on from the checkpoint before"
        ) from error


def refuse_other_launcher(folder: Path, sharded: bool) -> None:
    """Raises `BadInput` if a checkpoint was written under FSDP and the run is not `sharded`, or the other way round.

    transformers would go on without the optimizer's state, whose file it does not find.
    """
    if (folder / WEIGHTS).is_file() and sharded:
        raise BadInput(f"{folder} was written without FSDP; resume it without FSDP, with any number of processes")
    if not (folder / WEIGHTS).is_file() and not sharded:
        raise BadInput(
            f"{folder} has no {WEIGHTS}; if it was written under FSDP, resume it under FSDP, with any number of processes "
            "(torchrun --nproc_per_node 1 with FSDP's settings for one)"
        )


def mark_whole(folder: Path) -> None:
    """Marks a checkpoint as complete: writes the sizes in bytes of its files by their path. Raises `BadInput` if it cannot be written.

    It is dated behind all others beside it: the library deletes the oldest ones by their dates, and a clock may have been set back.
    """
    sizes = {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    write_whole(folder / WHOLE, json.dumps(sizes, indent=1) + "\n")
    latest = max(path.stat().st_mtime_ns for path in folder.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))
    os.utime(folder, ns=(latest, latest + 2 * 10**9))  # by more than the second within which the library takes dates for equal


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint is marked as complete and none of its files was cut off since. Older versions' marker is empty: no sizes."""
    try:
        marker = (folder / WHOLE).read_bytes()
        sizes = parse_json(marker) if marker else {}
        return isinstance(sizes, dict) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, BadJson):
        return False


def unmark(folder: Path) -> None:
    """Marks a checkpoint as incomplete, before it is written again."""
    (folder / WHOLE).unlink(missing_ok=True)


def last_whole(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None; newer incomplete ones are deleted."""
    newest = newest_whole(folder)
    for path in _numbered(folder):
        if newest is None or step_of(path) > step_of(newest):
            shutil.rmtree(path)
    return newest


def newest_whole(folder: Path) -> Path | None:
    """The newest complete checkpoint, or None. Changes nothing."""
    return max((path for path in _numbered(folder) if is_whole(path)), key=step_of, default=None)


def newest_finite(folder: Path) -> Path | None:
    """The newest complete checkpoint whose trained weights are finite numbers, or None. Under FSDP weights are not looked at."""
    whole = sorted((path for path in _numbered(folder) if is_whole(path)), key=step_of, reverse=True)
    return next((path for path in whole if not (path / WEIGHTS).is_file() or _is_finite(path / WEIGHTS)), None)


def _is_finite(weights: Path) -> bool:
    return all(bool(value.isfinite().all()) for value in read_tensors(weights).values() if value.is_floating_point())


def _numbered(folder: Path) -> list[Path]:
    return [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]


def step_of(checkpoint: Path) -> int:
    """The optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def whole_checkpoint(given: str | Path | bool | None, folder: Path) -> str | None:
    """The complete checkpoint that a Trainer's `resume_from_checkpoint` means: True is the last one in `folder`.

    Raises `BadInput` if there is none, or if the one given was cut off while it was written.
    """
    if given is None or given is False:
        return None
    if given is True:
        last = last_whole(folder)
        if last is None:
            raise BadInput(
                f"{folder} holds no complete checkpoint to resume from; leave resume_from_checkpoint out to start from the beginning"
            )
        return str(last)
    if not is_whole(Path(given)):
        raise BadInput(
            f"{given} is no complete checkpoint: it holds no file {WHOLE!r}, which is written last, or a file of it has another size than "
            "is written there; give another one, or True for the last complete one"
        )
    return str(given)
