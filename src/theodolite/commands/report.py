"""The report of surveys as the command line writes it: the page, and beside it the original pictures of the pairs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np
import polars as pl
from PIL import Image

from theodolite.records.errors import BadInput
from theodolite.records.folder import whole_folder, write_whole
from theodolite.records.survey import SurveyRecord
from theodolite.records.training_log import read_training_log
from theodolite.records.writing import png_bytes
from theodolite.report.model_card import card_of
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.survey.page import build_page
from theodolite.report.survey.pair_list import Files
from theodolite.worlds.decoding import UNDECODABLE, strict_pillow
from theodolite.worlds.manifest.faults import RowFault
from theodolite.worlds.manifest.images import locate, open_file
from theodolite.worlds.registry import WORLDS, gallery_named, is_gallery, world_named
from theodolite.worlds.world import picture_hash

# Formats that every browser shows; others become PNG.
SHOWN = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")


def write_page(
    folders: Sequence[Path],
    page: Path,
    pairs_dir: Path | None = None,
    pictures: Path | None = None,
    *,
    training_log: Path | None = None,
    card: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Writes the page of the surveys in these folders, with `pairs_dir` the pictures of all pairs there, to which it links, and the model
    card of one survey as `card`.

    Paths of given pairs are relative to `pictures`, or to the folder that the survey recorded; `training_log` as in `write_report`. Raises
    `BadRecord`, and `BadInput` where pictures are no longer there or are others than those that were asked about.
    """
    # All is made before the first file gets its name.
    words = None if card is None else card_of(folders)
    stored = [read_stored(folder) for folder in folders]
    log = None if training_log is None else read_training_log(training_log)
    if pairs_dir is None:
        if pictures is not None:
            raise BadInput("--pictures says where the pictures of given pairs are; give --pairs-dir too, which writes them")
        html = build_page(stored, log)
        _write_texts(page, html, card, words)
        return
    with whole_folder(pairs_dir, overwrite=overwrite) as unfinished:
        names = _write_originals(stored, unfinished, pictures)
        # Within: if the page cannot be written, no folder is left that would stand in the way of the same command.
        _write_texts(page, build_page(stored, log, _addresses(names, pairs_dir, page)), card, words)


def _write_texts(page: Path, html: str, card: Path | None, words: str | None) -> None:
    """Writes the page and the model card, or neither of two new ones: one alone would stand in the way of the same command."""
    is_new = card is not None and not card.exists()
    if card is not None and words is not None:
        write_whole(card, words)
    try:
        write_whole(page, html)
    except BadInput:
        if card is not None and is_new:
            card.unlink()
        raise


def _addresses(names: Files, pairs_dir: Path, page: Path) -> dict[str, dict[int, str]]:
    """The addresses of the pictures in `pairs_dir`, relative to the page."""
    home = PurePosixPath(Path(os.path.relpath(pairs_dir.resolve(), page.resolve().parent)).as_posix())
    return {pool: {number: quote(str(home / name)) for number, name in own.items()} for pool, own in names.items()}


def _write_originals(surveys: Sequence[StoredSurvey], folder: Path, pictures: Path | None) -> Files:
    """Writes the pictures of every pool, in a folder of its own where there are several; their names by pool and number."""
    pools: dict[str, StoredSurvey] = {}
    for stored in surveys:
        if stored.rows is not None:
            pools.setdefault(stored.record.pictures_sha256, stored)
    if not pools:
        raise BadInput("no survey here has a rows.parquet, so no pair is known; survey the model again")
    # The page numbers pools over all its surveys (`pair_columns.pools_of`).
    digests = list(dict.fromkeys(stored.record.pictures_sha256 for stored in surveys))
    names: dict[int, dict[int, str]] = {}
    for digest, stored in pools.items():
        below = "" if len(pools) == 1 else f"{digests.index(digest)}/"
        (folder / below).mkdir(exist_ok=True)
        written = _write_pool(stored, folder / below, pictures)
        names[digests.index(digest)] = {number: below + name for number, name in written.items()}
    return names


def _write_pool(stored: StoredSurvey, folder: Path, pictures: Path | None) -> dict[int, str]:
    paths = _paths(stored)
    world = stored.record.world
    if paths and not (world is not None and is_gallery(world.name)):
        source = pictures or _recorded_folder(stored)
        return {number: _copy(source, path, folder, number) for number, path in paths.items()}
    drawn = _drawn_by_name(stored, paths) if paths else _drawn_again(stored.record, _side(stored))
    for number, picture in drawn.items():
        (folder / f"{number:06d}.png").write_bytes(png_bytes(picture))
    return {number: f"{number:06d}.png" for number in drawn}


def _paths(stored: StoredSurvey) -> dict[int, str]:
    """The names of the pool's pictures by number; empty where they were drawn. Pictures that were changed for noise have none."""
    assert stored.rows is not None
    if "path_before" not in stored.rows.columns:
        return {}
    before = stored.rows.select(number="picture_before", path="path_before")
    after = stored.rows.filter(pl.col("kind") != "perturbation").select(number="picture_after", path="path_after")
    return dict(pl.concat([before, after]).drop_nulls().unique(maintain_order=True).iter_rows())


def _recorded_folder(stored: StoredSurvey) -> Path:
    recorded = None if stored.run is None else stored.run.pictures_folder
    if recorded is None:
        raise BadInput(f"{stored.record.title}: it is not recorded where its pictures are; give the manifest's folder as --pictures")
    if not Path(recorded).is_dir():
        raise BadInput(f"{stored.record.title}: its pictures were in {recorded}, which is not there; give their folder as --pictures")
    return Path(recorded)


def _copy(source: Path, path: str, folder: Path, number: int) -> str:
    """Copies one file, or converts it to PNG; its new name."""
    try:
        original = locate(source, path)
    except RowFault as fault:
        raise BadInput(f"{fault.problem}: no such picture in {source}; give the manifest's folder as --pictures") from fault
    suffix = original.suffix.lower()
    if suffix in SHOWN:
        shutil.copyfile(original, folder / f"{number:06d}{suffix}")
        return f"{number:06d}{suffix}"
    with strict_pillow():
        (folder / f"{number:06d}.png").write_bytes(png_bytes(np.asarray(open_file(source, path).image)))
    return f"{number:06d}.png"


def _side(stored: StoredSurvey) -> int:
    """The side in pixels at which pictures were drawn, from an example."""
    for example in stored.record.examples:
        with suppress(*UNDECODABLE), strict_pillow():
            if data := stored.picture(example.picture_before):
                return Image.open(BytesIO(data), formats=("PNG",)).width
    raise BadInput(f"{stored.record.title}: none of its example pictures can be read, so the size of its pictures is not known")


def _drawn_by_name(stored: StoredSurvey, paths: Mapping[int, str]) -> dict[int, np.ndarray]:
    world = stored.record.world
    assert world is not None
    numbers = sorted(paths)
    pictures = gallery_named(world.name, None, stored.record.seed).render([paths[number] for number in numbers], _side(stored))
    return dict(zip(numbers, pictures, strict=True))


def _drawn_again(record: SurveyRecord, size: int) -> dict[int, np.ndarray]:
    """The pictures of a world's pairs by number: they depend on world, number of scenes and seed only (`plan.plan_world`)."""
    if record.world is None or record.world.name not in WORLDS:
        name = "none" if record.world is None else record.world.name
        raise BadInput(f"{record.title}: the pictures of its world ({name}) cannot be drawn here; worlds are {', '.join(WORLDS)}")
    world = world_named(record.world.name)
    pictures = world.render(world.pairs(record.num_scenes, np.random.default_rng([record.seed, 0])).pool, size)
    if picture_hash(pictures) != record.pictures_sha256:
        raise BadInput(f"{record.title}: its pictures come out otherwise here than they were surveyed; use the version that surveyed it")
    return dict(enumerate(pictures))
