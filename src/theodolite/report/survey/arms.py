"""The arms of one page, an arm a survey: their labels, and the number of training seeds behind a figure."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from theodolite.records.survey import Evidence, SurveyRecord
from theodolite.report.stored import CoverageFacts, StoredSurvey, coverage_facts
from theodolite.report.words import listed


@dataclass(frozen=True, eq=False)
class SurveyArm:
    """One surveyed model on the page; `seed_words` says how many training seeds its figures rest on."""

    stored: StoredSurvey
    label: str
    seed_words: str
    anchor: str

    @property
    def named(self) -> str:
        """The label with `seed_words`, for titles of figures."""
        return self.label if self.label.endswith(self.seed_words) else f"{self.label} ({self.seed_words})"

    @property
    def record(self) -> SurveyRecord:
        return self.stored.record

    @cached_property
    def coverage(self) -> CoverageFacts | None:
        return coverage_facts(self.record)

    @cached_property
    def factors(self) -> tuple[str, ...]:
        """Factors in the world's order; without a world, in order of first mention."""
        if self.record.world is not None:
            return tuple(dict.fromkeys([*self.record.world.factors, *self.record.shadows.evidence]))
        shadows = self.record.shadows
        return tuple(dict.fromkeys([*shadows.evidence, *(cell.factor for cell in shadows.cells)]))

    @property
    def training_seed(self) -> int | None:
        return _seed(self.record)

    def evidence(self, factor: str) -> Evidence | None:
        return self.record.shadows.evidence.get(factor)


def label_arms(surveys: Sequence[StoredSurvey]) -> tuple[SurveyArm, ...]:
    """The surveys with unique labels: the title, with the training seed where several seeds share a title."""
    seeds: dict[str, set[int | None]] = defaultdict(set)
    for stored in surveys:
        seeds[policy_key(stored.record)].add(_seed(stored.record))
    uses: Counter[str] = Counter()
    arms = []
    for number, stored in enumerate(surveys):
        seed = _seed(stored.record)
        if seed is None:
            words, label = "one model, training seed unknown", stored.record.title
        elif len(seeds[policy_key(stored.record)] - {None}) > 1:
            words, label = f"seed {seed}", f"{stored.record.title}, seed {seed}"
        else:
            words, label = "one seed", stored.record.title
        uses[label] += 1
        arms.append(SurveyArm(stored, label if uses[label] == 1 else f"{label} ({uses[label]})", words, f"arm-{number}"))
    return tuple(arms)


def _seed(record: SurveyRecord) -> int | None:
    return None if record.training is None else record.training.seed


def policy_key(record: SurveyRecord) -> str:
    """Title, policy and world as JSON: equal for surveys that differ in their training seed only."""
    world = None if record.world is None else record.world.model_dump(mode="json")
    return json.dumps([record.title, record.policy, world], sort_keys=True)


def seed_words(arms: Sequence[SurveyArm]) -> str:
    """The number of training seeds behind a figure of several arms, in words."""
    words = {arm.seed_words for arm in arms}
    if len(words) == 1 and not next(iter(words)).startswith("seed "):
        return next(iter(words))
    single = [arm.label for arm in arms if arm.seed_words == "one seed"]
    unknown = [arm.label for arm in arms if arm.training_seed is None]
    parts = []
    seeds = {arm.training_seed for arm in arms if arm.seed_words.startswith("seed ")}
    if seeds:
        parts.append(f"{len(seeds)} training seeds, a row each")
    if single:
        parts.append(f"one seed for {listed(single)}")
    if unknown:
        parts.append(f"training seed unknown for {listed(unknown)}")
    return "; ".join(parts)
