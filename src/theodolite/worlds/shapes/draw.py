"""Rendering of the shapes world: stencils are drawn once with Pillow, then composed on a ground.

A picture is linear in its paints: `ground * w_ground + colour * w_colour + ink`. The weights are drawn at four times the
resolution and box-filtered down, once for each (shape, size, texture, letter, tilt).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from theodolite.records.errors import BadInput
from theodolite.worlds.factors import Scenes

SUPERSAMPLING = 4
# Lengths are fractions of the picture's side. Shapes of one size have the same area: that of a disc of this radius.
RADIUS = {"small": 0.11, "medium": 0.15, "large": 0.19}
CENTRES = (0.32, 0.44, 0.56, 0.68)
JITTER = 0.02
STENCIL = 0.60  # side of the square that contains every object at every tilt; it just fits at the outer centres
LETTER_HEIGHT = {"small": 0.15, "medium": 0.18, "large": 0.21}
TILT_DEGREES = {"anticlockwise": 28.0, "upright": 0.0, "clockwise": -28.0}
PAINT = {"red": (214, 48, 40), "yellow": (236, 200, 48), "blue": (48, 96, 214), "green": (52, 160, 84)}
GROUND = {"light": 232.0, "grey": 152.0, "dark": 72.0}
SHEEN_DEGREES = {"sheen-0": 90.0, "sheen-1": 210.0, "sheen-2": 330.0}
SHEEN_LEVELS = 14.0
SHADE = 0.55  # brightness of stripes and dots relative to the paint
INK, RIM = 250.0, 20.0
NOISE_LEVELS = 6
CHUNK = 256


class Stencil(NamedTuple):
    """Weights of one object at each pixel: of the ground and of the colour, 0 to 1, and the value that ink adds."""

    ground: Float[np.ndarray, "side side"]
    colour: Float[np.ndarray, "side side"]
    ink: Float[np.ndarray, "side side"]
    letter: Bool[np.ndarray, "side side"]


def draw_scenes(scenes: Scenes, size: int) -> UInt8[np.ndarray, "scene size size 3"]:
    """Pictures of the shapes world, RGB 0 to 255. Raises `BadInput` on sizes under 32, where letters are not legible."""
    if size < 32:
        raise BadInput(f"size is {size}; letters need pictures of 32 pixels or more")
    pictures = np.empty((len(scenes), size, size, 3), dtype=np.uint8)
    for start in range(0, len(scenes), CHUNK):
        stop = min(start + CHUNK, len(scenes))
        canvas = np.empty((stop - start, size, size, 3), dtype=np.float32)
        for row, index in enumerate(range(start, stop)):
            _draw_scene(canvas[row], scenes, index, size)
        np.rint(np.clip(canvas, 0, 255, out=canvas), out=canvas)
        pictures[start:stop] = canvas
    return pictures


def _draw_scene(canvas: Float[np.ndarray, "size size 3"], scenes: Scenes, index: int, size: int) -> None:
    values = scenes.scene(index).values
    top, left, rng = _place(scenes, index, size)
    light = rng.uniform(0.90, 1.02)
    canvas[...] = _ground(values["ground"], values["sheen"], size)[..., None]
    stencil = _stencil_of(values, size)
    side = len(stencil.ground)
    window = canvas[top : top + side, left : left + side]
    window *= stencil.ground[..., None]
    window += stencil.colour[..., None] * np.array(PAINT[values["colour"]], dtype=np.float32)
    window += stencil.ink[..., None]
    canvas *= light
    canvas += rng.integers(-NOISE_LEVELS, NOISE_LEVELS + 1, (size, size, 1), dtype=np.int8)


def _place(scenes: Scenes, index: int, size: int) -> tuple[int, int, np.random.Generator]:
    """Top and left of the object's window in pixels, and the nuisance generator, whose state does not depend on factor values."""
    rng = np.random.default_rng(int(scenes.nuisance[index]))
    jitter = rng.uniform(-JITTER, JITTER, size=2)
    side = round(STENCIL * size)
    column, row = (CENTRES[scenes.of_factor(name)[index]] for name in ("column", "row"))
    left, top = (  # the clamp only corrects a pixel of rounding
        min(max(round((centre + shift) * size - side / 2), 0), size - side) for centre, shift in zip((column, row), jitter, strict=True)
    )
    return top, left, rng


@cache
def _ground(ground: str, sheen: str, size: int) -> Float[np.ndarray, "size size"]:
    """Ground brightness with its sheen, a linear gradient in one direction."""
    angle = np.deg2rad(SHEEN_DEGREES[sheen])
    y, x = np.mgrid[0:size, 0:size] / (size - 1) * 2 - 1
    return np.asarray(GROUND[ground] + SHEEN_LEVELS * (np.cos(angle) * x - np.sin(angle) * y), dtype=np.float32)


def _stencil_of(values: Mapping[str, str], size: int) -> Stencil:
    return _stencil(values["shape"], values["size"], values["texture"], values["letter"], values["tilt"], size)


@lru_cache(maxsize=2048)
def _stencil(shape: str, scale: str, texture: str, letter: str, tilt: str, size: int) -> Stencil:
    """Paint weights of one object, composed from its layers."""
    body, shade = _layer("body", shape, scale, tilt, size), _layer("texture", texture, scale, tilt, size)
    glyph, plate = _layer("letter", letter, scale, tilt, size), _layer("plate", letter, scale, tilt, size)
    paint = body - (1 - SHADE) * np.minimum(shade, body)
    return Stencil(
        ground=(1 - body) * (1 - plate), colour=paint * (1 - plate), ink=glyph * INK + np.maximum(plate - glyph, 0) * RIM, letter=plate > 0
    )


@lru_cache(maxsize=1024)
def _layer(kind: str, value: str, scale: str, tilt: str, size: int) -> Float[np.ndarray, "side side"]:
    """Fraction of each pixel that a layer covers, 0 to 1: drawn upright at `SUPERSAMPLING` resolution, rotated, then filtered down."""
    side, unit = round(STENCIL * size) * SUPERSAMPLING, float(size * SUPERSAMPLING)
    if kind == "body":
        drawn = _body(value, RADIUS[scale] * unit, side)
    elif kind == "texture":
        drawn = _texture(value, unit, side)
    else:
        rim = max(round(0.016 * unit), 1) if kind == "plate" else 0
        drawn = _letter(value, LETTER_HEIGHT[scale] * unit, rim, side)
    degrees = TILT_DEGREES[tilt]
    rotated = drawn.rotate(degrees, resample=Image.Resampling.BICUBIC) if degrees else drawn
    return np.asarray(rotated.reduce(SUPERSAMPLING), dtype=np.float32) / 255


def _body(shape: str, radius: float, side: int) -> Image.Image:
    """The filled shape, centred; every shape has the area of a disc of `radius`."""
    image = Image.new("L", (side, side))
    pen, middle, area = ImageDraw.Draw(image), side / 2, np.pi * radius**2
    if shape == "round":
        pen.ellipse((middle - radius, middle - radius, middle + radius, middle + radius), fill=255)
    elif shape == "square":
        half = np.sqrt(area) / 2
        pen.rectangle((middle - half, middle - half, middle + half, middle + half), fill=255)
    elif shape == "triangular":
        reach = np.sqrt(area * 4 / (3 * np.sqrt(3)))
        angles = np.deg2rad([90, 210, 330])
        pen.polygon([(middle + reach * np.cos(a), middle - reach * np.sin(a)) for a in angles], fill=255)
    else:
        arm = np.sqrt(area / 5)  # a plus of five squares
        for wide, high in ((3, 1), (1, 3)):
            box = (middle - wide * arm / 2, middle - high * arm / 2, middle + wide * arm / 2, middle + high * arm / 2)
            pen.rectangle(box, fill=255)
    return image


def _texture(texture: str, unit: float, side: int) -> Image.Image:
    image = Image.new("L", (side, side))
    pen = ImageDraw.Draw(image)
    if texture == "striped":
        period = 0.085 * unit
        for k in range(-8, 9):
            left = side / 2 + k * period - period / 4
            pen.rectangle((left, 0, left + period / 2, side), fill=255)
    elif texture == "dotted":
        period, radius = 0.1 * unit, 0.032 * unit
        for row in range(-6, 7):
            for k in range(-6, 7):
                x, y = side / 2 + (k + 0.5) * period, side / 2 + (row + 0.5) * period
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return image


def _letter(letter: str, height: float, stroke: int, side: int) -> Image.Image:
    image = Image.new("L", (side, side))
    font = ImageFont.load_default(size=height / 0.7)  # capitals of Pillow's default font are 0.7 em high
    ImageDraw.Draw(image).text((side / 2, side / 2), letter, fill=255, font=font, anchor="mm", stroke_width=stroke)
    return image
