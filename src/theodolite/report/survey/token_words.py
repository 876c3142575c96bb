"""Pictures with the words of their vision tokens, for the page: what the page's script draws, as data."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass

from theodolite.records.words import ShownPicture
from theodolite.report.survey.inside import InsideView
from theodolite.report.vega import Spec

LENS_WORDS = {"latent": "LatentLens: nearest words in context", "logit": "logit lens: the model's own output head"}
STRENGTH_WORDS = {"latent": "cosine with the nearest", "logit": "probability of the first"}


@dataclass(frozen=True)
class TokenWordsFigure:
    """One picture with words over its tokens: its scene, its values in words, and the data of its grids."""

    scene_id: int
    values: str
    spec: Spec


def token_words(view: InsideView) -> Iterator[TokenWordsFigure]:
    """The figures of an arm's words, none without that measure."""
    words = view.inside.words
    for shown in words.shown if words else ():
        values = ", ".join(f"{factor} {value}" for factor, value in shown.values.items())
        yield TokenWordsFigure(shown.scene_id, values, _spec(view, shown))


def _spec(view: InsideView, shown: ShownPicture) -> Spec:
    picture = view.arm.stored.picture(shown.picture)
    grids: dict[int, list[tuple[int, int, int]]] = {}
    for token, (grid, row, column) in enumerate(shown.cells):
        grids.setdefault(grid, []).append((token, row, column))
    lenses = [lens for lens in LENS_WORDS if any(each.lens == lens for each in shown.lenses)]
    return {
        # A picture of several tiles or views has no one grid to lie behind.
        "picture": f"data:image/png;base64,{b64encode(picture).decode()}" if picture and len(grids) == 1 else None,
        "values": shown.values,
        "grids": list(grids.values()),
        "lenses": [
            {
                "heading": LENS_WORDS[lens],
                "strength": STRENGTH_WORDS[lens],
                "sites": [
                    {"site": each.site, "words": each.words, "strength": each.strength, "named": each.named}
                    for each in shown.lenses
                    if each.lens == lens
                ],
            }
            for lens in lenses
        ],
    }
