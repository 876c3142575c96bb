"""The worlds by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from theodolite.records.errors import UnknownName
from theodolite.worlds.easy_vqa import EasyVQA
from theodolite.worlds.shapes import Shapes
from theodolite.worlds.world import World

WORLDS: Mapping[str, Callable[[], World]] = {Shapes.name: Shapes, EasyVQA.name: EasyVQA}


def world_named(name: str, strength: float = 0.0, correlation: tuple[str, str] | None = None) -> World:
    """A world, with its default correlation (or another) at a strength of 0 to 1. Raises `UnknownName`, `BadInput`."""
    if name not in WORLDS:
        raise UnknownName("world", name, tuple(WORLDS))
    world = WORLDS[name]()
    cause, effect = correlation or world.default_correlation
    return world.correlate(cause, effect, strength)
