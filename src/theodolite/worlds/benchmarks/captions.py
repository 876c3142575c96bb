"""Layouts of benchmarks that pair captions with pictures: COCO-Counterfactuals and What'sUp. See docs/manifest.md for what was checked."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from theodolite.records.errors import BadInput
from theodolite.worlds.benchmarks.pairs import CAPTION, ConvertedRow, Records, SkippedRecord, one_of, shuffled_choices, within

EXAMPLE_KEYS = ("id", "caption_0", "caption_1", "image_0", "image_1")
SETS = {
    "controlled_images_dataset.json": ("controlled_images", "A", (("left", "right"), ("on", "under"))),
    "controlled_clevr_dataset.json": ("controlled_clevr", "B", (("left", "right"), ("in-front", "behind"))),
}
Shown = tuple[Path, list[str]]  # a picture of What'sUp and its captions, the right one first


def read_coco_counterfactuals(source: Path) -> Records:
    """COCO-Counterfactuals: `examples.jsonl` and `images/NAME.jpg`, both also below `data/`; names in the file have no ending."""
    path = one_of(source, ("examples.jsonl", "data/examples.jsonl"), "COCO-Counterfactuals")
    images = one_of(source, ("images", "data/images"), "COCO-Counterfactuals (with images.zip unpacked)")
    images = images / "images" if (images / "images").is_dir() else images
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _coco_pair(f"{path}, line {number}", images, line)


def _coco_pair(where: str, images: Path, line: bytes) -> ConvertedRow | SkippedRecord:
    try:
        example = json.loads(line)
    except ValueError as error:
        return SkippedRecord(f"{where}: no JSON in UTF-8 ({error})")
    if not isinstance(example, dict) or (missing := [key for key in EXAMPLE_KEYS if not isinstance(example.get(key), str | int)]):
        return SkippedRecord(f"{where}: lacks {', '.join(missing) if isinstance(example, dict) else 'its keys'}")
    names = [f"pictures/{within(Path(), str(example[key]))}".removesuffix(".jpg") + ".jpg" for key in ("image_0", "image_1")]
    captions = [str(example["caption_0"]), str(example["caption_1"])]
    identity = str(example["id"])
    # Names begin with the number of the COCO caption that several examples may come from: those are not independent.
    begun = re.match(r"(\d+)_\d+$", identity)
    subject = _changed(*captions)
    row = {
        "id": f"coco-{identity}",
        "scene": begun[1] if begun else identity,
        "factor": "subject",
        "from": subject[0],
        "to": subject[1],
        "picture": names[0],
        "edited": names[1],
        "question": CAPTION,
        "choices": shuffled_choices(captions, identity),
        "answer_before": captions[0],
        "answer_after": captions[1],
        "kind": "matched",
    }
    return ConvertedRow(row, {name: within(images, name) for name in names})


def _changed(one: str, other: str) -> tuple[str, str]:
    """The words of two captions that are not in both; the captions themselves where that leaves nothing on a side."""
    first, second = one.split(), other.split()
    steps = [step for step in SequenceMatcher(None, first, second, autojunk=False).get_opcodes() if step[0] != "equal"]
    left = " ".join(word for _, start, end, _, _ in steps for word in first[start:end])
    right = " ".join(word for _, _, _, start, end in steps for word in second[start:end])
    return (left, right) if left and right and left != right else (one, other)


def read_whatsup(source: Path) -> Records:
    """What'sUp, controlled pictures: `controlled_images_dataset.json` (A) and `controlled_clevr_dataset.json` (B), each beside its folder.

    Files are called OBJECT_RELATION_..._OTHER; the pictures of two objects are one scene, and opposite relations are its two pairs.
    """
    one_of(source, tuple(SETS), "What'sUp")
    for name, (folder, letter, opposites) in SETS.items():
        if not (source / name).is_file():
            continue
        sets: dict[tuple[str, str], dict[str, Shown]] = {}
        for number, entry in enumerate(_entries(source / name), start=1):
            where = f"{source / name}, entry {number}"
            captions, image = entry.get("caption_options"), entry.get("image_path")
            if not isinstance(image, str) or not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
                yield SkippedRecord(f"{where}: lacks image_path or caption_options")
                continue
            path = within(source / folder, image)
            parts = path.stem.split("_")
            if len(parts) < 3 or not captions:
                yield SkippedRecord(f"{where}: {path.name} is not called OBJECT_RELATION_OTHER, or has no captions")
                continue
            found = sets.setdefault((parts[0], parts[-1]), {})
            if parts[1] in found:
                yield SkippedRecord(f"{where}: a second picture of {parts[0]} {parts[1]} {parts[-1]}")
                continue
            found[parts[1]] = (path, captions)
        for objects, found in sets.items():
            yield from (_whatsup_pair(source / name, letter, objects, found, pair) for pair in opposites)


def _entries(path: Path) -> list[Mapping[str, Any]]:
    try:
        entries = json.loads(path.read_bytes())
    except ValueError as error:
        raise BadInput(f"{path} is no JSON in UTF-8 ({error}); take it anew from its authors") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{path} is no list of objects with image_path and caption_options; take it anew from its authors")
    return entries


def _whatsup_pair(
    path: Path, letter: str, objects: tuple[str, str], found: Mapping[str, Shown], pair: tuple[str, str]
) -> ConvertedRow | SkippedRecord:
    scene = f"{letter} {objects[0]} {objects[1]}"
    if missing := [relation for relation in pair if relation not in found]:
        return SkippedRecord(f"{path}, set {scene}: no picture of {' and '.join(missing)}")
    (before, captions), (after, others) = (found[relation] for relation in pair)
    if set(captions) != set(others):
        return SkippedRecord(f"{path}, set {scene}: the two pictures of {pair[0]} and {pair[1]} have different captions")
    names = [f"pictures/{letter}/{shown.name}" for shown in (before, after)]
    row = {
        "id": f"whatsup-{letter}-{objects[0]}-{objects[1]}-{pair[0]}",
        "scene": scene,
        "factor": "relation",
        "from": pair[0],
        "to": pair[1],
        "picture": names[0],
        "edited": names[1],
        "question": CAPTION,
        "choices": shuffled_choices(captions, scene),
        "answer_before": captions[0],
        "answer_after": others[0],
        "kind": "matched",
    }
    return ConvertedRow(row, dict(zip(names, (before, after), strict=True)))
