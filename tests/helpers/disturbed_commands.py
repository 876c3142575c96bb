"""The commands that tests disturb, on tiny inputs that lie in a folder `home`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import HELPERS, script_environment
from helpers import survey_records as made
from helpers.disturbed_runs import Command, files_below
from helpers.openmoji_package import write_package
from helpers.pair_rows import answered_rows
from helpers.tiny_encoders import clip, dino, saved
from helpers.tiny_llava import tiny_vlm
from theodolite.models.export import export_vlm
from theodolite.records.survey import RunRecord

# Files with dates and durations: all else is compared to the byte.
DATED = ("run.json", "tensorboard")


def train(home: Path, launched: int | None = None) -> Command:
    """Three stages of six steps with a checkpoint every other one; of several processes LaVer's stage alone."""
    return Command(lambda root: [HELPERS / "short_train.py", root / "run"], trained, launched=launched)


def trained(root: Path) -> Mapping[str, object]:
    """All files of a run; of its logs what is no duration."""
    outcome: dict[str, object] = dict(files_below(root, *DATED))
    for name in [name for name in outcome if name.endswith("log.jsonl")]:
        lines = [json.loads(line) for line in (root / name).read_text().splitlines()]
        outcome[name] = [{key: value for key, value in line.items() if not key.startswith("time/")} for line in lines]
    return outcome


def survey(home: Path) -> Command:
    export_vlm(*tiny_vlm(), home / "model")
    arguments = ["--world", "shapes", "--ask", "shape,row", "--scenes", "4", "--save-every", "100", "--batch", "16", "--measures", "gap"]
    return Command(
        lambda root: ["-m", "theodolite", "survey", home / "model", *arguments, "--out", root / "out"],
        lambda root: files_below(root, *DATED, "report.html"),
    )


def endpoint(home: Path, url: str) -> Command:
    """`url` is that of a server in this process."""
    arguments = ["--world", "shapes", "--prompt", "letters", "--ask", "shape,row", "--picture-size", "32", "--scenes", "3"]
    return Command(
        lambda root: ["-m", "theodolite", "survey", "org/tiny", "--endpoint", url, *arguments, "--concurrency", "3", "--out", root / "out"],
        lambda root: files_below(root, *DATED, "report.html", "out.responses.sqlite"),
    )


def study(home: Path) -> Command:
    return Command(
        lambda root: [HELPERS / "tiny_study.py", "--seeds", "2", "--workers", "2", "--out", root / "out"],
        lambda root: files_below(root, *DATED, "index.html"),  # it shows when and how long the study ran
        script_environment(),
    )


NPM = """#!/bin/sh
while [ "$1" != "--prefix" ]; do shift; done
mkdir -p "$2/node_modules"
cp -R "{package}" "$2/node_modules/openmoji"
"""


def fetch(home: Path) -> Command:
    package, npm = write_package(home / "registry" / "openmoji"), home / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM.format(package=package))
    npm.chmod(0o755)
    path = os.pathsep.join([str(npm.parent), "/usr/bin", "/bin"])
    return Command(lambda root: ["-m", "theodolite", "fetch", "openmoji", "--into", root / "into"], files_below, {"PATH": path})


def blind(home: Path) -> Command:
    encoders = saved(clip(), home / "clip"), saved(dino(), home / "dino")
    random = np.random.default_rng(0)
    (home / "pictures").mkdir()
    for number in range(12):
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(home / "pictures" / f"{number}.png")
    arguments = ["--same", encoders[0], "--different", encoders[1], "--high", "0.1", "--low", "0.9"]
    arguments += ["--batch", "2"]
    return Command(
        lambda root: ["-m", "theodolite", "blind", home / "pictures", *arguments, "--vectors", root / "vectors", "--out", root / "out"],
        lambda root: files_below(root, "lock"),
    )


def convert(home: Path) -> Command:
    lines = ["Index,Question,Options,Correct Answer"]
    (home / "MMVP Images").mkdir()
    random = np.random.default_rng(0)
    for number in range(1, 41):
        picture = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(picture).save(home / "MMVP Images" / f"{number}.jpg")
        lines.append(f'{number},"Is it {(number + 1) // 2}, open or closed?",(a) Open (b) Closed,({"ab"[number % 2]})')
    (home / "Questions.csv").write_text("\n".join(lines) + "\n")
    return Command(lambda root: ["-m", "theodolite", "manifest", "convert", "mmvp", home, "--out", root / "out"], files_below)


def report(home: Path) -> Command:
    """The page, the pictures of its pairs, and a model card."""
    first, *_ = made.three_records()
    folder = made.write(home / "survey", first.model_copy(update={"world": None, "examples": ()}))
    rows = answered_rows(3)
    rows.write_parquet(folder / "rows.parquet")
    (home / "given" / "own").mkdir(parents=True)
    for number, name in enumerate(sorted({*rows["path_before"], *rows["path_after"]})):
        Image.new("RGB", (90, 60), (number, 50, 200)).save(home / "given" / name)
    run = RunRecord.model_validate_json((folder / "run.json").read_text())
    (folder / "run.json").write_text(run.model_copy(update={"pictures_folder": str(home / "given")}).model_dump_json())
    arguments = ["-m", "theodolite", "report", folder]
    return Command(
        lambda root: [*arguments, "--out", root / "page.html", "--pairs-dir", root / "pairs", "--model-card", root / "card.md"], files_below
    )


COMMANDS: Mapping[str, Callable[[Path], Command]] = {
    "train": train,
    "train-two": partial(train, launched=2),
    "survey": survey,
    "study": study,
    "fetch": fetch,
    "blind": blind,
    "convert": convert,
    "report": report,
}
