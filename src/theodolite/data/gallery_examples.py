"""Training examples with partners from the pairs of a gallery, such as a survey's manifest."""

from __future__ import annotations

import numpy as np

from theodolite.data.examples import MAX_QUESTIONS, ExampleSet, QuestionAnswer
from theodolite.data.partners import Partners, drawn_part
from theodolite.records.errors import BadInput
from theodolite.worlds.gallery import Gallery


def gallery_examples(gallery: Gallery, size: int, seed: int = 0, pair_frac: float = 1.0) -> ExampleSet:
    """One example for each pair of pictures: the first, with its questions and true answers, and the second as its partner.

    A pair with more than `MAX_QUESTIONS` questions makes several examples. A fraction (0 to 1) of the examples, drawn by the seed, has
    partners. Rows about one picture (another wording of the question) are left out. Raises `BadInput` if that leaves none.
    """
    rows = gallery.table.filter(gallery.table["picture_before"] != gallery.table["picture_after"])
    if not len(rows):
        raise BadInput(f"{gallery.name} has no pair of two pictures; give rows with an edited picture")
    asked: dict[tuple[str, str, str], list[tuple[QuestionAnswer, bool]]] = {}
    columns = ("picture_before", "picture_after", "factor", "question_before", "truth_before", "truth_after")
    for before, after, factor, question, truth, truth_after in rows.select(columns).iter_rows():
        asked.setdefault((before, after, factor), []).append((QuestionAnswer(question, truth), truth != truth_after))
    examples = [(pair, items[at : at + MAX_QUESTIONS]) for pair, items in asked.items() for at in range(0, len(items), MAX_QUESTIONS)]
    has_partner = drawn_part(len(examples), pair_frac, np.random.default_rng([seed, 6]))
    partnered = [example for example, has in zip(examples, has_partner, strict=True) if has]
    return ExampleSet(
        gallery.render([before for (before, _, _), _ in examples], size),
        tuple(tuple(item for item, _ in items) for _, items in examples),
        num_distinct=len({before for (before, _, _), _ in examples}),
        partners=Partners(
            gallery.render([after for (_, after, _), _ in partnered], size),
            np.where(has_partner, has_partner.cumsum() - 1, -1),
            tuple(factor for (_, _, factor), _ in partnered),
            tuple(tuple(moves for _, moves in items) for _, items in partnered),
        ),
    )
