"""A small manifest of exact pairs, the answers of a rule that looks at pictures, and logs of them as other tools write them."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import yaml
from PIL import Image

COLOURS = {"red": (200, 40, 40), "blue": (40, 40, 200)}
COLOUR_QUESTION, EDGE_QUESTION = "What colour is it?", "Is there an edge?"


def draw(path: Path, colour: str, edge: bool, scene: int) -> None:
    picture = np.full((32, 32, 3), COLOURS[colour], dtype=np.uint8)
    picture[:, 20] = 255 if edge else picture[0, 0]
    picture[30, 30] = scene  # no two scenes have the same picture
    Image.fromarray(picture).save(path)


def write_colour_manifest(folder: Path, num_scenes: int = 12) -> Path:
    """Scenes of three rows: colour and edge asked when the colour changes, and colour asked when the edge changes."""
    folder.mkdir(parents=True)
    (folder / "own").mkdir()
    rows = []
    for scene in range(num_scenes):
        colour, other = ("red", "blue") if scene % 2 else ("blue", "red")
        edge = scene % 3 == 0
        names = [f"own/{scene}-{kind}.png" for kind in ("base", "colour", "edge")]
        for name, changed, drawn in zip(names, (colour, other, colour), (edge, edge, not edge), strict=True):
            draw(folder / name, changed, drawn, scene)
        asked = {"question": COLOUR_QUESTION, "choices": ["blue", "red"], "query": "colour"}
        turned = {"factor": "colour", "from": colour, "to": other, "picture": names[0], "edited": names[1], "scene": scene}
        rows.append({**turned, **asked, "answer_before": colour, "answer_after": other})
        answer = "yes" if edge else "no"
        about_edge = {"question": EDGE_QUESTION, "choices": ["yes", "no"], "query": "edge", "form": "yes_no"}
        rows.append({**turned, **about_edge, "answer_before": answer, "answer_after": answer})
        moved = {"factor": "edge", "from": answer, "to": "no" if edge else "yes", "picture": names[0], "edited": names[2], "scene": scene}
        rows.append({**moved, **asked, "answer_before": colour, "answer_after": colour})
        rows.append({**moved, **about_edge, "answer_before": answer, "answer_after": moved["to"]})
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answer_by_looking(picture: Image.Image, question: str) -> str:
    """Right about the colour; of the edge it says yes for every red picture, so it takes the one for the other."""
    red, _, blue = np.asarray(picture.convert("RGB"))[0, 0]
    return ("red" if red > blue else "blue") if "colour" in question else ("yes" if red > blue else "no")


def lmms_eval_log(task: Path, log: Path, answer: Callable[[Image.Image, str], str] = answer_by_looking) -> list[dict[str, Any]]:
    """Runs an exported task as lmms-eval does, with `answer` as the model, and writes its log of samples; the samples as written."""
    (file,) = task.glob("*.yaml")
    config = yaml.load(file.read_text(), TaskLoader)
    functions = module_of(task / "utils.py")
    documents = datasets.load_dataset(config["dataset_path"], **config["dataset_kwargs"], cache_dir=str(log.parent / "cache"))
    samples = []
    for number, doc in enumerate(documents[config["test_split"]]):
        (visual,) = functions.doc_to_visual(doc)
        text = answer(visual, doc["question"])
        letters = [line.partition(". ") for line in functions.doc_to_text(doc).split("\n")]
        reply = next((f"{letter}." for letter, _, choice in letters if choice == text), text)
        sample = {"doc_id": number, "target": functions.doc_to_target(doc), "filtered_resps": [reply], "doc_hash": "0" * 64}
        samples.append({**sample, **functions.process_results(doc, [reply]), "input": functions.doc_to_text(doc)})
    log.parent.mkdir(parents=True, exist_ok=True)
    write_lines(log, samples)
    assert 0 <= functions.aggregate([sample["theodolite_right"] for sample in samples]) <= 1
    return samples


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


class TaskLoader(yaml.SafeLoader):
    """Reads `!function utils.NAME` as its text, which lmms-eval makes the function."""


TaskLoader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("exported_utils", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}
