"""Commands that write to a disk, each with what it reads (elsewhere) and the files that an undisturbed run leaves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from helpers import HELPERS
from helpers.command_line import run_warm
from helpers.openmoji_package import write_package
from helpers.tiny_llava import tiny_vlm
from theodolite.models.export import export_vlm

OWN = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "COLUMNS": "300"}
# Files with times in them, and what is stored only to save time.
CHANGING = ("run.json", "log.jsonl", "report.html", ".lock", "lock", "index.html")
NPM = """#!/bin/sh
while [ "$1" != "--prefix" ]; do shift; done
mkdir -p "$2/node_modules" && cp -R "{package}" "$2/node_modules/openmoji" || {{ echo "npm error code ENOSPC" >&2; exit 1; }}
"""


@dataclass(frozen=True)
class DiskCommand:
    """A command line (`python ...`) that writes to a folder on the disk, and the environment that it needs."""

    words: Callable[[Path], list[str]]
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, disk: Path) -> subprocess.CompletedProcess[str]:
        environment = {name: value.format(disk=disk) for name, value in self.environment.items()}
        return run_warm(*self.words(disk), environment={**OWN, **environment})


def content(disk: Path) -> dict[str, bytes]:
    """The files of a disk by path, without those that hold times."""
    files = [path for path in disk.rglob("*") if path.is_file() and path.name not in CHANGING and "tensorboard" not in path.parts]
    return {str(path.relative_to(disk)): path.read_bytes() for path in files}


def commands(home: Path) -> dict[str, DiskCommand]:
    """The commands by name; what they read is written to `home`."""
    model = home / "model"
    export_vlm(*tiny_vlm(), model)
    survey = ["-m", "theodolite", "survey", str(model), "--world", "shapes", "--ask", "shape", "--scenes", "3", "--batch", "16"]
    done = run_warm(*survey, "--out", home / "survey", environment=OWN)
    assert done.returncode == 0, done.stderr
    pictures = home / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(24):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(pictures / f"{number}.png")
    main = ["-m", "theodolite"]
    blind = [*main, "blind", str(pictures), "--same", "conv", "--different", "lite0", "--high", "-1", "--low", "1", "--most", "9"]
    report = [*main, "report", str(home / "survey")]
    convert = [*main, "manifest", "convert", "mmvp", str(_mmvp(home))]
    export = [*main, "manifest", "export", str(_manifest(home)), "--as", "datasets"]
    study = [str(HELPERS / "disk_study.py")]
    return {
        "train": DiskCommand(lambda disk: [str(HELPERS / "faulty_train.py"), str(disk / "run")]),
        "survey": DiskCommand(lambda disk: [*survey, "--out", str(disk / "out"), "--save-every", "40", "--measures", "likeness"]),
        "study": DiskCommand(lambda disk: [*study, str(home), str(disk / "out")]),
        "blind": DiskCommand(lambda disk: [*blind, "--out", str(disk / "out"), "--vectors", str(disk / "vectors")]),
        "report": DiskCommand(lambda disk: [*report, "--out", str(disk / "page.html"), "--pairs-dir", str(disk / "pairs")]),
        "convert": DiskCommand(lambda disk: [*convert, "--out", str(disk / "out")]),
        "fetch": DiskCommand(lambda disk: [*main, "fetch", "openmoji", "--into", str(disk / "into")], _npm(home)),
        "export": DiskCommand(lambda disk: [*export, "--out", str(disk / "out")]),
        "csv": DiskCommand(lambda disk: [*survey, "--out", str(disk / "out"), "--csv", str(disk / "cells.csv")]),
    }


def _mmvp(home: Path) -> Path:
    """A benchmark on disk, in the layout of MMVP."""
    source = home / "mmvp"
    if not source.exists():
        (source / "MMVP Images").mkdir(parents=True)
        rows = [f"{number},Is it open or closed?,(a) Open (b) Closed,({'ab'[number % 2]})" for number in range(1, 13)]
        (source / "Questions.csv").write_text("\n".join(["Index,Question,Options,Correct Answer", *rows]) + "\n")
        for number in range(1, 13):
            shutil.copy(home / "pictures" / f"{number}.png", source / "MMVP Images" / f"{number}.png")
            Image.open(home / "pictures" / f"{number}.png").save(source / "MMVP Images" / f"{number}.jpg")
    return source


def _manifest(home: Path) -> Path:
    """A manifest of pairs with its pictures."""
    folder = home / "manifest"
    if not folder.exists():
        folder.mkdir()
        rows = []
        for number in range(6):
            names = [f"{2 * number}.png", f"{2 * number + 1}.png"]
            for name in names:
                shutil.copy(home / "pictures" / name, folder / name)
            rows.append(
                {
                    "id": f"row-{number}",
                    "scene": str(number),
                    "kind": "exact",
                    "factor": "colour",
                    "from": "red",
                    "to": "blue",
                    "picture": names[0],
                    "edited": names[1],
                    "question": "Which colour?",
                    "choices": ["red", "blue"],
                    "answer_before": "red",
                    "answer_after": "blue",
                }
            )
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "pairs.jsonl"


def _npm(home: Path) -> dict[str, str]:
    """The environment with an npm that copies a small package, and fails as npm does where there is no space."""
    if not (home / "bin").exists():
        package = write_package(home / "registry" / "openmoji")
        (home / "bin").mkdir()
        (home / "bin" / "npm").write_text(NPM.format(package=package))
        (home / "bin" / "npm").chmod(0o755)
    return {"PATH": f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"}
