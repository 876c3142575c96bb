"""A clock that was set back, or was wrong: dates of files in the future change nothing of what goes on, is kept or is made again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers.trainer import rotate_checkpoints

from helpers.disturbed_commands import COMMANDS, endpoint
from helpers.disturbed_runs import Undisturbed
from helpers.endpoint_server import Server, by_pixels, serving
from theodolite.training.checkpoint import last_whole, mark_whole

YEAR_S = 365 * 86_400


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving(by_pixels) as running:
        yield running


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", ["blind", "convert", "fetch", "report", "survey", "endpoint", "train", "study"])
def test_what_a_kill_leaves_is_gone_on_from_whatever_its_dates_are(name: str, server: Server, tmp_path: Path) -> None:
    whole = Undisturbed.of(endpoint(tmp_path, server.url) if name == "endpoint" else COMMANDS[name](tmp_path), tmp_path / "whole")
    dice, root = random.Random(name), tmp_path / "root"
    for _ in range(2):
        run = whole.command.run(root, whole.fault("kill", dice))
        assert run.status in (0, -9) or whole.is_finished(root), run
        for path in sorted(root.rglob("*")):
            date = time.time() + dice.choice([-1, 1]) * dice.uniform(0, YEAR_S)
            os.utime(path, (date, date), follow_symlinks=False)
    last = whole.command.run(root)
    assert last.status in (0, 2) and whole.is_finished(root), last


@pytest.mark.parametrize("ahead_s", [-YEAR_S, 0, 0.5, 3600, YEAR_S])
def test_the_newest_checkpoint_stays_though_older_ones_are_dated_later(tmp_path: Path, ahead_s: float) -> None:
    """The library deletes checkpoints by their dates: with an hour set back it deleted the one just written."""
    for step in range(2, 12, 2):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        mark_whole(folder)
        rotate_checkpoints(str(tmp_path), 2, use_mtime=True)
        assert last_whole(tmp_path) == folder
        date = folder.stat().st_mtime + ahead_s  # the clock is set back by that much before the next one
        os.utime(folder, (date, date))
    assert len(list(tmp_path.iterdir())) == 2
