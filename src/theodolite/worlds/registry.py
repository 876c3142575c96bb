"""Worlds and galleries by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from theodolite.records.errors import BadInput, UnknownName
from theodolite.worlds.easy_vqa.world import EasyVQA
from theodolite.worlds.gallery import Gallery
from theodolite.worlds.openmoji.bases import FACTORS as OPENMOJI_FACTORS
from theodolite.worlds.openmoji.gallery import openmoji_gallery
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World

WORLDS: Mapping[str, Callable[[], World]] = {Shapes.name: Shapes, EasyVQA.name: EasyVQA}
GALLERIES: tuple[str, ...] = tuple(f"openmoji:{factor}" for factor in OPENMOJI_FACTORS)


def world_named(name: str, strength: float = 0.0, correlation: tuple[str, str] | None = None) -> World:
    """A world, with its default correlation (or another) at a strength of 0 to 1. Raises `UnknownName`, `BadInput`."""
    if is_gallery(name):
        raise BadInput(
            f"{name!r} is a gallery of existing pictures, which can be surveyed, but not trained on or rendered; "
            f"worlds are {', '.join(WORLDS)}, galleries {', '.join(GALLERIES)}"
        )
    if name not in WORLDS:
        raise UnknownName("world", name, (*WORLDS, *GALLERIES))
    world = WORLDS[name]()
    cause, effect = correlation or world.default_correlation
    return world.correlate(cause, effect, strength)


def is_gallery(name: str) -> bool:
    """Whether a name denotes a gallery, even of an unknown factor, which `gallery_named` then refuses."""
    return name.partition(":")[0] == "openmoji"


def gallery_named(name: str, num_scenes: int | None, seed: int) -> Gallery:
    """A gallery of all its scenes (None) or of `num_scenes` drawn by the seed. Raises `UnknownName`, `BadInput`."""
    kind, colon, factor = name.partition(":")
    if kind == "openmoji" and not colon:
        raise BadInput(f"openmoji has several galleries; give one of {', '.join(GALLERIES)}")
    if kind != "openmoji":
        raise UnknownName("gallery", name, GALLERIES)
    return openmoji_gallery(factor, num_scenes, seed)
