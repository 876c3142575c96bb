"""Publishing a run while it trains: the model's own folder, and complete checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, HubStrategy
from transformers.utils.hub import PushInProgress, hf_api


def push_while_training(trainer: Any, checkpoint: Path) -> None:
    """Uploads the model that `output_dir` then holds, and the complete checkpoint if `hub_strategy` says so. Call it on every process.

    An upload that has not ended is not repeated, unless `hub_always_push`.
    """
    arguments, running = trainer.args, getattr(trainer, "push_in_progress", None)
    if arguments.hub_strategy == HubStrategy.END:
        return
    state = trainer.vlm_state()  # collective: every process must call it
    if not trainer.is_world_process_zero() or (running is not None and not running.is_done() and not arguments.hub_always_push):
        return
    trainer.write_vlm(Path(arguments.output_dir), state)
    message = f"Training in progress, step {trainer.state.global_step}"
    common = {"repo_id": trainer.hub_model_id, "token": arguments.hub_token, "run_as_future": True, "revision": arguments.hub_revision}
    ignored = ["_*", f"{PREFIX_CHECKPOINT_DIR}-*"]
    jobs = [hf_api().upload_folder(folder_path=arguments.output_dir, commit_message=message, ignore_patterns=ignored, **common)]
    if arguments.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        name = "last-checkpoint" if arguments.hub_strategy == HubStrategy.CHECKPOINT else checkpoint.name
        jobs.append(
            hf_api().upload_folder(folder_path=str(checkpoint), path_in_repo=name, commit_message=f"{message}, checkpoint", **common)
        )
    if running is None or running.is_done():
        trainer.push_in_progress = PushInProgress(jobs)
    else:
        running.jobs.extend(jobs)
