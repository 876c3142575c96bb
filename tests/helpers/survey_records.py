"""Survey records made by hand for tests of the report: valid, plausible, and measured on nothing."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from theodolite.records.part import Estimate
from theodolite.records.survey import (
    Cell,
    Competence,
    Evidence,
    Example,
    Leak,
    ModelConfig,
    Noise,
    Rate,
    RunRecord,
    Score,
    Shadows,
    SurveyRecord,
    Thresholds,
    TrainingFacts,
    Verdict,
    WorldConfig,
)

FACTORS: Mapping[str, tuple[str, ...]] = {
    "shape": ("round", "square", "triangular", "crossed"),
    "colour": ("red", "yellow", "blue", "green"),
    "size": ("small", "medium", "large"),
    "row": ("top", "upper", "lower", "bottom"),
    "sheen": ("sheen-0", "sheen-1", "sheen-2"),
}
WORLD = WorldConfig(
    name="shapes",
    pair_kind="exact",
    factors=dict(FACTORS),
    groups={"colour": {"warm": ("red", "yellow"), "cold": ("blue", "green")}},
    unnameable=("sheen",),
    correlations=(
        {
            "cause": "shape",
            "effect": "colour",
            "strength": 0.9,
            "map": {"round": ["red"], "square": ["yellow"], "triangular": ["blue"], "crossed": ["green"]},
        },
    ),
)
PAINT = {"red": (214, 48, 40), "yellow": (236, 200, 48), "blue": (48, 96, 214), "green": (52, 160, 84)}
Moves = Mapping[tuple[str, str, str, bool], float]  # (factor, query, form, truth moves) -> share of pairs


def rate(frac: float, num_scenes: int = 200) -> Rate:
    half = 1.96 * (max(frac * (1 - frac), 0.01) / num_scenes) ** 0.5
    return Rate(frac=frac, low=max(frac - half, 0.0), high=min(frac + half, 1.0), num_pairs=num_scenes, num_scenes=num_scenes)


def cell(factor: str, query: str, form: str, truth_moves: bool, frac: float) -> Cell:
    moved, right, variation = rate(frac), rate(0.9 * frac if truth_moves else 1 - frac), rate(0.95 * frac)
    return Cell(
        factor=factor, query=query, form=form, truth_moves=truth_moves,
        moved_frac=moved.frac, low=moved.low, high=moved.high, num_pairs=200, num_scenes=200,
        right_frac=right.frac, right_low=right.low, right_high=right.high,
        variation=variation.frac, variation_low=variation.low, variation_high=variation.high,
    )  # fmt: skip


def moves(queries: tuple[tuple[str, str], ...], special: Moves) -> Moves:
    """Shares for every cell of these (query, form): low for leaks, high for reads, unless `special` says otherwise."""
    plain: dict[tuple[str, str, str, bool], float] = {}
    for number, (query, form) in enumerate(queries):
        for place, factor in enumerate(FACTORS):
            own = factor == query
            if own:
                plain[factor, query, form, True] = 1 / 3 + 0.6
            if not own or form == "yes_no":
                plain[factor, query, form, False] = 0.005 + (place + number) / 97
    return {**plain, **special}


# A model that was not trained gives nearly all probability to tokens outside the choices.
UNTRAINED = Thresholds(outside_frac=1.0)


def leak(factor: str, query: str, frac: float) -> Leak:
    """A leak at this rate, with a noise of 0.015."""
    above = Estimate(value=frac - 0.015, low=frac - 0.06, high=frac + 0.06, num_scenes=rate(frac).num_scenes)
    return Leak(
        factor=factor, query=query, form="open", rate=rate(frac), source="nuisance", noise=rate(0.015), above_noise=above, adjusted=above
    )


def shadows(table: Moves, verdicts: Mapping[str, Verdict]) -> Shadows:
    queries = list(dict.fromkeys((query, form) for _, query, form, _ in table))

    def evidence(factor: str) -> Evidence:
        reads = [frac for (changed, _, _, truth_moves), frac in table.items() if changed == factor and truth_moves]
        leaks = {query: frac for (changed, query, _, truth_moves), frac in table.items() if changed == factor and not truth_moves}
        worst = max(leaks, key=lambda query: leaks[query], default=None)
        return Evidence(
            asked=bool(reads),
            read=rate(reads[0]) if reads else None,
            read_queries=(f"{factor} (open)",) if reads else (),
            leak=None if worst is None else leak(factor, worst, leaks[worst]),
            verdict=verdicts.get(factor, "inert"),
        )

    found = {factor: evidence(factor) for factor in FACTORS}
    return Shadows(
        thresholds=Thresholds(),
        cells=tuple(cell(*key, frac) for key, frac in table.items()),
        noise_cells=tuple(
            Noise(query=query, form=form, source=source, rate=rate(frac), variation=frac / 2)
            for query, form in queries
            for source, frac in (("nuisance", 0.015), ("paraphrase", 0.02))
        ),
        competence=tuple(
            Competence(query=query, form=form, scenes=scenes, rate=rate(frac), chance_frac=0.27 if form == "open" else 0.5, state="fit")
            for query, form in queries
            for scenes, frac in (("decorrelated", 0.62), ("training", 0.97))
        ),
        verdicts={factor: item.verdict for factor, item in found.items()},
        evidence=found,
        outside_mass=0.0123,
    )


def coverage(policy: str, covered: Mapping[str, float], pressure: Mapping[str, float], proxy: Mapping[str, float]) -> dict[str, Any]:
    reach = {name: 1.0 if covered.get(name) else 0.0 for name in FACTORS}
    return {
        "coverage": {name: covered.get(name, 0.0) for name in FACTORS},
        "coverage_limit": reach,
        "reach": reach,
        "pressure_bits": {name: pressure.get(name, 0.0) for name in FACTORS},
        "proxy_bits": dict(proxy),
        "joint_proxy_bits": {},
        "resolved_frac": 0.75,
        "resolved_low": 0.75,
        "resolved_high": 0.75,
        "resolved_exact": True,
        "cause": {name: "unasked" for name in FACTORS if not covered.get(name)},
        "agreement_frac": 0.925,
        "policy": policy,
    }


def training(policy: str, seed: int = 0, **changed: Any) -> TrainingFacts:
    facts = TrainingFacts(
        arm=policy, comparison="policy", recipe="short", seed=seed, world="shapes", strength=0.9, source="policy", policy=policy,
        num_pictures=4000, num_steps=600, num_questions=19200,
        num_answer_tokens=38400, pictures_sha256="ab" * 32, order_sha256="cd" * 32, questions_sha256="ef" * 32,
    )  # fmt: skip
    return facts.model_copy(update=changed)


def example(scene: int, factor: str, question: str, truths: tuple[str, str], answers: tuple[str, str]) -> Example:
    before, after = FACTORS[factor][scene % 2], FACTORS[factor][2]
    return Example(
        scene_id=scene, factor=factor, value_before=before, value_after=after, question=question,
        truth_before=truths[0], truth_after=truths[1], answer_before=answers[0], answer_after=answers[1],
        picture_before=f"pictures/{scene}-{before}.png", picture_after=f"pictures/{scene}-{after}.png",
    )  # fmt: skip


def record(title: str, policy: str, table: Moves, verdicts: Mapping[str, Verdict], **more: Any) -> SurveyRecord:
    filled: dict[str, Any] = {
        "world": WORLD,
        "policy": policy,
        "seed": 0,
        "num_scenes": 200,
        "coverage": None,
        "training": training(policy),
        "model": ModelConfig(family="llava", weights_sha256=f"{len(title):02d}" * 32, num_parameters=5_400_000, dtype="float32"),
        "pictures_sha256": "12" * 32,
        "rows_sha256": "34" * 32,
    }
    return SurveyRecord(title=title, shadows=shadows(table, verdicts), **{**filled, **more})


def three_records() -> tuple[SurveyRecord, SurveyRecord, SurveyRecord]:
    """The flip as the essay predicts it: shape alone, shape and colour, and yes/no questions."""
    shape, both = (("shape", "open"),), (("shape", "open"), ("colour", "open"))
    yes_no = (*shape, ("shape", "yes_no"))
    scores = (Score(split="test", form="open", accuracy_frac=0.91, low=0.89, high=0.93, text_only_frac=0.34, num_questions=1000),)

    def examples(shape_leaks: bool) -> tuple[Example, ...]:
        moved = ("round", "triangular" if shape_leaks else "round")
        kept = ("square", "square" if shape_leaks else "triangular")
        return (
            example(0, "colour", "what is its shape?", ("round", "round"), moved),
            example(1, "shape", "name the shape of the object.", ("square", "triangular"), kept),
        )

    return (
        record(
            "shape only", "shape", moves(shape, {("shape", "shape", "open", True): 0.085, ("colour", "shape", "open", False): 0.97}),
            {"shape": "blind", "colour": "shadow"},
            coverage=coverage("shape", {"shape": 0.19}, {"shape": 0.5032}, {"colour->shape": 1.4968}), examples=examples(True),
        ),
        record(
            "shape and colour", "shape,colour", moves(both, {}), {"shape": "identified", "colour": "identified", "size": "undecided"},
            coverage=coverage("shape,colour", {"shape": 0.19, "colour": 0.19}, {"shape": 0.25, "colour": 0.25}, {"colour->shape": 1.5}),
            examples=examples(False), scores=scores,
        ),
        record(
            "shape, and is it round", "shape,shape=round*2", moves(yes_no, {("colour", "shape", "open", False): 0.41}),
            {"shape": "entangled", "colour": "shadow", "row": "cannot_be_asked"},
            coverage=coverage("shape,shape=round*2", {"shape": 0.19}, {"shape": 0.33}, {"colour->shape": 1.5, "colour->shape=round": 0.5}),
        ),
    )  # fmt: skip


def png(name: str) -> bytes:
    """A small PNG in the colour its name ends with, or grey."""
    image = Image.new("RGB", (24, 24), (230, 230, 226))
    word = Path(name).stem.rpartition("-")[2]
    ImageDraw.Draw(image).ellipse((6, 6, 17, 17), fill=PAINT.get(word, (120, 120, 120)))
    data = BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def write(folder: Path, survey: SurveyRecord, *, run: bool = True) -> Path:
    """Writes a record's folder as a survey does: survey.json, run.json, pictures."""
    (folder / "pictures").mkdir(parents=True)
    (folder / "survey.json").write_text(survey.to_json(), encoding="utf-8")
    if run:
        how = RunRecord(
            command="theodolite survey", started="2026-01-02T03:04:05Z", seconds=61.5, seconds_by_part={"asking": 50.0}, host={"cores": 2},
            packages={"torch": "2.13.0", "transformers": "5.23.0"}, git_revision="0123456789abcdef", attention="sdpa", device="cpu",
        )  # fmt: skip
        (folder / "run.json").write_text(how.model_dump_json(), encoding="utf-8")
    for shown in survey.examples:
        for name in (shown.picture_before, shown.picture_after):
            (folder / name).write_bytes(png(name))
    return folder
