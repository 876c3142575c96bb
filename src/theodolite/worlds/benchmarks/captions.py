"""Readers of benchmarks that pair captions with pictures: COCO-Counterfactuals and What'sUp (docs/reference/manifest.md)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from pathlib import Path

from theodolite.records.reading import BadJson, numbered_lines, parse_json
from theodolite.worlds.benchmarks.pairs import CAPTION, ConvertedRow, Records, SkippedRecord, json_list, one_of, shuffled_choices, within

EXAMPLE_KEYS = ("id", "caption_0", "caption_1", "image_0", "image_1")
WHATSUP_SUBSETS = {
    "controlled_images_dataset.json": ("controlled_images", "A", (("left", "right"), ("on", "under"))),
    "controlled_clevr_dataset.json": ("controlled_clevr", "B", (("left", "right"), ("in-front", "behind"))),
}
CaptionedPicture = tuple[Path, list[str]]  # a picture of What'sUp and its captions, the right one first


def read_coco_counterfactuals(source: Path) -> Records:
    """COCO-Counterfactuals: `examples.jsonl` and `images/NAME.jpg`, or both below `data/`; picture names in the file lack `.jpg`."""
    path = one_of(source, ("examples.jsonl", "data/examples.jsonl"), "COCO-Counterfactuals")
    images = one_of(source, ("images", "data/images"), "COCO-Counterfactuals (with images.zip unpacked)")
    images = images / "images" if (images / "images").is_dir() else images
    for number, line in numbered_lines(path):
        yield _coco_pair(f"{path}, line {number}", images, line or b"")


def _coco_pair(where: str, images: Path, line: bytes) -> ConvertedRow | SkippedRecord:
    try:
        example = parse_json(line)
    except BadJson as error:
        return SkippedRecord(f"{where}: the line {error}")
    if not isinstance(example, dict) or (missing := [key for key in EXAMPLE_KEYS if not isinstance(example.get(key), str | int)]):
        return SkippedRecord(f"{where}: lacks {', '.join(missing) if isinstance(example, dict) else 'its keys'}")
    names = [f"pictures/{within(Path(), str(example[key]))}".removesuffix(".jpg") + ".jpg" for key in ("image_0", "image_1")]
    captions = [str(example["caption_0"]), str(example["caption_1"])]
    identity = str(example["id"])
    words = _changed_words(*captions)
    # An id begins with the number of a COCO caption. Examples made from one caption are not independent, hence one scene.
    caption_number = re.match(r"(\d+)_\d+$", identity)
    row = {
        "id": f"coco-{identity}",
        "scene": caption_number[1] if caption_number else identity,
        "factor": "subject",
        "from": words[0],
        "to": words[1],
        "picture": names[0],
        "edited": names[1],
        "question": CAPTION,
        "choices": shuffled_choices(captions, identity),
        "answer_before": captions[0],
        "answer_after": captions[1],
        "kind": "matched",
    }
    return ConvertedRow(row, {name: within(images, name) for name in names})


def _changed_words(one: str, other: str) -> tuple[str, str]:
    """The words in which two captions differ, of each; the whole captions where one side has none."""
    first, second = one.split(), other.split()
    steps = [step for step in SequenceMatcher(None, first, second, autojunk=False).get_opcodes() if step[0] != "equal"]
    left = " ".join(word for _, start, end, _, _ in steps for word in first[start:end])
    right = " ".join(word for _, _, _, start, end in steps for word in second[start:end])
    return (left, right) if left and right and left != right else (one, other)


def read_whatsup(source: Path) -> Records:
    """What'sUp, controlled pictures: `controlled_images_dataset.json` (A) and `controlled_clevr_dataset.json` (B), each beside its folder.

    Files are named OBJECT_RELATION_..._OTHER. The pictures of two objects are one scene; each two opposite relations are a pair.
    """
    one_of(source, tuple(WHATSUP_SUBSETS), "What'sUp")
    for name, (folder, letter, opposites) in WHATSUP_SUBSETS.items():
        if not (source / name).is_file():
            continue
        by_objects: dict[tuple[str, str], dict[str, CaptionedPicture]] = {}
        for number, entry in enumerate(json_list(source / name, "image_path and caption_options"), start=1):
            where = f"{source / name}, entry {number}"
            captions, image = entry.get("caption_options"), entry.get("image_path")
            if not isinstance(image, str) or not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
                yield SkippedRecord(f"{where}: lacks image_path or caption_options")
                continue
            path = within(source / folder, image)
            words = path.stem.split("_")
            if len(words) < 3 or not captions:
                yield SkippedRecord(f"{where}: {path.name} is not named OBJECT_RELATION_OTHER, or has no captions")
                continue
            pictures = by_objects.setdefault((words[0], words[-1]), {})
            if words[1] in pictures:
                yield SkippedRecord(f"{where}: a second picture of {words[0]} {words[1]} {words[-1]}")
                continue
            pictures[words[1]] = (path, captions)
        for objects, pictures in by_objects.items():
            yield from (_whatsup_pair(source / name, letter, objects, pictures, pair) for pair in opposites)


def _whatsup_pair(
    path: Path, letter: str, objects: tuple[str, str], pictures: Mapping[str, CaptionedPicture], pair: tuple[str, str]
) -> ConvertedRow | SkippedRecord:
    scene = f"{letter} {objects[0]} {objects[1]}"
    if missing := [relation for relation in pair if relation not in pictures]:
        return SkippedRecord(f"{path}, set {scene}: no picture of {' and '.join(missing)}")
    (before, captions), (after, others) = (pictures[relation] for relation in pair)
    if set(captions) != set(others):
        return SkippedRecord(f"{path}, set {scene}: the two pictures of {pair[0]} and {pair[1]} have different captions")
    names = [f"pictures/{letter}/{file.name}" for file in (before, after)]
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
