"""Pictures of a gallery that draws them: rendered when they are taken, equal to an array of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.openmoji_package import write_package
from helpers.requirements import require
from helpers.tiny_llava import tiny_vlm
from theodolite.measurement.pairs.plan import Plan, plan_gallery
from theodolite.measurement.pairs.rendered_pictures import NUM_HASHED, RenderedPictures
from theodolite.measurement.survey.session import survey_model
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.openmoji.gallery import openmoji_gallery, render_openmoji
from theodolite.worlds.world import picture_hash

require("resvg_py")
SIZE = 24


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("npm") / "openmoji")


@pytest.fixture
def gallery(home: Path, monkeypatch: pytest.MonkeyPatch) -> Gallery:
    """Scenes of skin tones without the noise rows of one query, so that *perturb* changes pictures."""
    monkeypatch.setenv("THEODOLITE_OPENMOJI", str(home))
    whole = openmoji_gallery("skin_tone", 6)
    table = whole.table
    return replace(whole, table=table.filter((table["factor"] != "") | (table["query"] != "skin_tone")))


def both(gallery: Gallery) -> tuple[Plan, Plan]:
    """The plan with all pictures in an array, and with a pool."""
    return plan_gallery(gallery, SIZE, "perturb"), plan_gallery(gallery, SIZE, "perturb", PixelLimits())


def test_a_pool_has_the_pictures_of_the_array(gallery: Gallery) -> None:
    array, pool = both(gallery)
    assert isinstance(array.pictures, np.ndarray) and isinstance(pool.pictures, RenderedPictures)
    number = len(array.pictures)
    assert array.rows.equals(pool.rows) and len(pool.pictures) == number > pool.num_pair_pictures == array.num_pair_pictures
    for at in ([3, 0, 3, number - 1], slice(2, 9), np.array([number - 1, 1]), slice(None), slice(0, 0)):
        assert np.array_equal(pool.pictures[at], array.pictures[at])
    assert np.array_equal(pool.pictures[-1], array.pictures[-1])
    assert np.array_equal(pool.pictures.take([4, number - 1]).read([1, 0])[0], array.pictures[-1])
    assert pool.pictures.given_size(0) == (SIZE, SIZE)


def test_the_hash_is_that_of_the_array(gallery: Gallery) -> None:
    array, pool = both(gallery)
    assert isinstance(array.pictures, np.ndarray) and isinstance(pool.pictures, RenderedPictures)
    assert len(array.pictures) > NUM_HASHED
    for number in (1, NUM_HASHED, array.num_pair_pictures, len(array.pictures)):
        assert pool.pictures.pixel_hash(number) == picture_hash(array.pictures[:number])


def test_a_survey_holds_few_pictures_at_a_time_and_its_numbers_are_those_of_the_array(gallery: Gallery) -> None:
    model, taken = tiny_vlm(), []

    def counting(names: Sequence[str], size: int) -> np.ndarray:
        taken.append(len(names))
        return render_openmoji(names, size)

    options = {"noise": "perturb", "picture_size": SIZE, "save_every": 16}
    record, array = survey_model(model, replace(gallery, render=counting), **options).record, both(gallery)[0]
    assert sum(taken) >= 2 * len(array.pictures) and max(taken) <= NUM_HASHED < len(array.pictures)
    other = survey_model(model, array, **options).record
    assert record.rows_sha256 == other.rows_sha256 and record.pictures_sha256 == other.pictures_sha256
    assert record.shadows == other.shadows and record.pictures is None
