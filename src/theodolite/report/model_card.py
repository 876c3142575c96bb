"""A survey as a model card: a summary in Markdown under YAML with the rates as a model-index, as the Hugging Face hub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from theodolite.records.errors import BadInput
from theodolite.records.part import Estimate, Rate
from theodolite.records.survey import Evidence, SurveyRecord
from theodolite.report.stored import StoredSurvey, read_stored
from theodolite.report.survey.accuracy import ACCURACY, accuracy_rows
from theodolite.report.survey.arms import label_arms
from theodolite.report.survey.findings import page_findings
from theodolite.report.survey.health import page_lights
from theodolite.report.survey.words import show_leak, show_rate, value_of
from theodolite.report.words import MEANING, WORD, show_count

TASK = "visual-question-answering"
MARKED = re.compile(r"([\\`*_\[\]<>|#~])")


def card_of(surveys: Sequence[Path]) -> str:
    """The card of one survey, given by its folder. Raises `BadInput` where there are several, `BadRecord` on an invalid record."""
    if len(surveys) != 1:
        raise BadInput(f"a model card is about one survey, and {len(surveys)} were given; name one folder")
    return model_card(read_stored(surveys[0]))


def model_card(stored: StoredSurvey) -> str:
    """YAML metadata with a model-index, then the findings, verdicts, accuracies, limits and provenance in Markdown."""
    record = stored.record
    results = eval_results(record)
    data = ModelCardData(
        model_name=record.title, pipeline_tag=TASK, tags=["theodolite", "counterfactual-pairs"], eval_results=results or None
    )
    return f"---\n{data.to_yaml()}\n---\n\n" + "\n\n".join(_sections(stored)) + "\n"


def eval_results(record: SurveyRecord) -> list[EvalResult]:
    """The read and the leak above noise of each factor, 0 to 1, and the accuracies of given pairs, each with its interval."""
    numbers: list[tuple[str, str, Rate | Estimate | None]] = []
    for factor, evidence in record.shadows.evidence.items():
        leak = None if evidence.leak is None else evidence.leak.adjusted or evidence.leak.above_noise
        numbers.append(("read", f"read of {factor}", evidence.read if evidence.asked else None))
        numbers.append(("leak_above_noise", f"leak of {factor} above noise", leak))
    for name in ACCURACY:
        share = None if record.accuracy is None else getattr(record.accuracy, name)
        numbers.append((f"{name}_accuracy", f"{name} accuracy", None if share is None else share.rate))
    return [_eval_result(record, kind, name, number) for kind, name, number in numbers if number is not None]


def _eval_result(record: SurveyRecord, kind: str, name: str, number: Rate | Estimate) -> EvalResult:
    pairs = _pairs_of(record)
    about: dict[str, Any] = {"low": number.low, "high": number.high, "confidence": record.shadows.thresholds.confidence}
    return EvalResult(
        task_type=TASK,
        dataset_type=pairs.replace(" ", "-"),
        dataset_name=pairs,
        dataset_args={"num_scenes": record.num_scenes, "seed": record.seed, "pictures_sha256": record.pictures_sha256},
        metric_type=kind,
        metric_name=name,
        metric_value=value_of(number),
        metric_args={**about, "num_scenes": number.num_scenes},
    )


def _pairs_of(record: SurveyRecord) -> str:
    return "pairs from a file" if record.world is None else record.world.name


def _sections(stored: StoredSurvey) -> Iterator[str]:
    record, arms = stored.record, label_arms([stored])
    yield f"# {_plain(record.title)}: counterfactual survey"
    yield (
        f"Surveyed by theodolite on {show_count(record.num_scenes)} scenes of {_plain(_pairs_of(record))}: one factor of a picture "
        "changes, the same question is asked of both pictures, and the two answers are compared. A *read* is an answer that changes "
        "with the truth, a *leak* one that changes although the truth does not."
    )
    findings = [f"* {_plain(finding.text)}" for finding in page_findings(arms)]
    yield "\n".join(["## Findings", "", *(findings or ["No finding: every factor is inert or without evidence."])])
    rows = [_verdict_row(factor, evidence) for factor, evidence in record.shadows.evidence.items()]
    yield "\n".join(["## Verdicts", "", *_table(("factor", "verdict", "read", "leak that decides"), rows)])
    verdicts = dict.fromkeys(record.shadows.verdicts.values())
    yield "\n".join(f"* **{WORD[verdict]}**: {MEANING[verdict]}" for verdict in verdicts)
    if accuracies := [(row.name, row.meaning, cell.text) for row in accuracy_rows(arms) for cell in row.cells]:
        yield "\n".join(["## Accuracy", "", *_table(("accuracy", "right at once", "share right"), accuracies)])
    limits = [
        f"* **{light.name}**: {_plain(f'{light.text} {light.remedy}'.strip())}" for light in page_lights(arms) if light.state != "good"
    ]
    if limits:
        yield "\n".join(["## Limits", "", *limits])
    yield "\n".join(["## Provenance", "", *_provenance(stored)])


def _verdict_row(factor: str, evidence: Evidence) -> tuple[str, ...]:
    read = show_rate(evidence.read) if evidence.asked and evidence.read is not None else "–"
    return factor, WORD[evidence.verdict], read, "–" if evidence.leak is None else show_leak(evidence.leak)


def _provenance(stored: StoredSurvey) -> Iterator[str]:
    record, limits = stored.record, stored.record.shadows.thresholds
    yield f"* Model: {_plain(record.model.words)}, weights {record.model.weights_sha256 or 'unknown'}"
    yield f"* Pictures {record.pictures_sha256}, answers {record.rows_sha256}, seed {record.seed}"
    yield (
        f"* Thresholds: read above {limits.read_frac:g} of pairs, leak more than {limits.leak_above_noise_frac:g} above noise; intervals "
        f"at {limits.confidence:g}, clustered by scene"
    )
    if record.world is not None and record.world.attribution:
        yield f"* Attribution: {_plain(record.world.attribution)}"
    if stored.run is not None:
        yield f"* Run: {stored.run.started}, {', '.join(f'{name} {version}' for name, version in stored.run.packages.items())}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *([_plain(text) for text in row] for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _plain(text: str) -> str:
    """Text in which no character is Markdown or HTML, on one line."""
    return MARKED.sub(r"\\\1", " ".join(text.split()))
