"""Pictures sent to an endpoint hold, without loss, the pixels that training and surveys decode from the same files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.endpoint_askers import asker_at
from helpers.endpoint_server import Asked, Reply, said, serving
from helpers.saved_pictures import COLOUR, SAVED, turned
from theodolite.data.samples import open_picture
from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.read import read_manifest

WIDE = COLOUR[:40]  # 64 x 40


def saved(folder: Path) -> dict[str, np.ndarray | None]:
    """The files of all modes, and a photograph that its EXIF data turn, by name; None where the pixels depend on the decoder of JPEGs."""
    pixels: dict[str, np.ndarray | None] = {}
    for number, (suffix, make, options, expected) in enumerate(SAVED.values()):
        name = f"{number:02d}.{suffix}"
        make().save(folder / name, **options)
        pixels[name] = np.asarray(expected, dtype=np.uint8)
    Image.fromarray(WIDE).save(folder / "turned.jpg", quality=90, exif=turned())
    return {**pixels, "turned.jpg": None}


def manifest(folder: Path, names: list[str]) -> Path:
    """One pair of every file and the next, with a question of its own."""
    rows = [
        {"scene": at, "factor": "colour", "from": "red", "to": "blue", "picture": name, "edited": names[(at + 1) % len(names)],
         "question": f"which colour, of {name}?", "choices": ["red", "blue"], "answer_before": "red", "answer_after": "blue",
         "query": "colour", "kind": "matched"}
        for at, name in enumerate(names)
    ]  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sent_of(path: Path, **options: int) -> dict[str, set[tuple[tuple[int, ...], bytes]]]:
    """Shape and pixels of the pictures that a survey sends, by question, all of them PNG files in RGB of 8 bits."""

    def reply(asked: Asked) -> Reply:
        return said("A", {"A": 0.9, "B": 0.1} if asked.body.get("logprobs") else None)

    with serving(reply) as server:
        asker = asker_at(server, picture_size=options.get("picture_size"))
        survey_model(SurveyedModel(asker, 32, asker.describe), path, noise="given", **options)
        sent: dict[str, set[tuple[tuple[int, ...], bytes]]] = {}
        for asked in server.asked:
            if asked.question.startswith("which colour"):
                (url,) = [part["image_url"]["url"] for part in asked.body["messages"][0]["content"] if part["type"] == "image_url"]
                assert url.startswith("data:image/png;base64,") and asked.picture.dtype == np.uint8
                sent.setdefault(asked.question, set()).add((asked.picture.shape, asked.picture.tobytes()))
    return sent


def expected_of(names: list[str], pixels: dict[str, np.ndarray]) -> dict[str, set[tuple[tuple[int, ...], bytes]]]:
    return {
        f"which colour, of {name}?": {(pixels[side].shape, pixels[side].tobytes()) for side in (name, names[(at + 1) % len(names)])}
        for at, name in enumerate(names)
    }


def test_an_endpoint_is_sent_the_pixels_that_training_and_surveys_decode(tmp_path: Path) -> None:
    expected = saved(tmp_path)
    path, names = manifest(tmp_path, list(expected)), list(expected)
    trained = {name: np.asarray(open_picture(tmp_path / name).image) for name in names}
    assert trained["turned.jpg"].shape == (64, 40, 3)
    for name, pixels in expected.items():
        assert pixels is None or np.array_equal(trained[name], pixels), name
    pool = plan_gallery(read_manifest(path).gallery, 0, limits=PixelLimits()).pictures
    for number, name in enumerate(sorted(names)):
        assert np.array_equal(pool[number], trained[name]), name
    assert sent_of(path) == expected_of(names, trained)


def test_squares_and_limits_of_pixels_are_sent_as_surveys_of_a_local_model_make_them(tmp_path: Path) -> None:
    names = list(saved(tmp_path))
    path = manifest(tmp_path, names)
    for options, limits in (({"picture_size": 24}, PixelLimits(side=24)), ({"max_pixels": 900}, PixelLimits(max_pixels=900))):
        pool = plan_gallery(read_manifest(path).gallery, 24, limits=limits).pictures
        pixels = {name: np.asarray(pool[number]) for number, name in enumerate(sorted(names))}
        assert all(picture.shape[0] * picture.shape[1] <= 900 for picture in pixels.values())
        assert sent_of(path, **options) == expected_of(names, pixels)
