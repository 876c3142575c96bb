"""Checks of names on the command line that run before other options are complained about, hence as callbacks. No torch."""

from __future__ import annotations

from pathlib import Path

from theodolite.records.errors import UnknownName

RECIPES = ("tiny-laver", "smol", "laver-siglip2", "laver-clip", "laver-qwen2.5-vl", "laver-llava-onevision")


def known_world(name: str) -> str:
    """The name of a world. Raises `UnknownName`, or `BadInput` for a gallery."""
    from theodolite.worlds.registry import world_named

    world_named(name)
    return name


def known_world_or_data(name: str) -> str:
    """The name of a world, or a Parquet file, which is not opened here. Raises `UnknownName`."""
    return name if Path(name).suffix == ".parquet" else known_world(name)


def known_world_or_gallery(name: str | None) -> str | None:
    """The name of a world, or of a gallery, which `gallery_named` checks. Raises `UnknownName`."""
    from theodolite.worlds.registry import is_gallery

    return name if name is None or is_gallery(name) else known_world(name)


def known_recipe(name: str) -> str:
    """The name of a recipe, known without its module, which loads PyTorch. Raises `UnknownName`."""
    if name not in RECIPES:
        raise UnknownName("recipe", name, RECIPES)
    return name


def known_layout(name: str) -> str:
    """The name of a benchmark's layout. Raises `UnknownName`."""
    from theodolite.worlds.benchmarks.formats import LAYOUTS

    if name not in LAYOUTS:
        raise UnknownName("layout", name, tuple(LAYOUTS))
    return name
