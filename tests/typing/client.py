"""What a user's script writes, for type checkers: `pyright tests/typing/client.py` and `mypy --strict tests/typing/client.py`.

The types that the public names give to a script are stated in the annotations; a change of one is an error of the checkers.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

import theodolite as th


def coverage_of_policy(policy: str) -> dict[str, float]:
    world: th.World = th.Shapes().correlate("shape", "colour", strength=0.8)
    return th.measure_coverage(world, policy).coverage


def failures_of(model: str, out: Path) -> pl.DataFrame:
    result: th.SurveyResult = th.survey_model(model, th.Shapes(), policy="shape:agree,row", num_scenes=20)
    result.save(out, overwrite=True)
    again: th.SurveyResult = th.load_survey(out)
    th.write_report([again], out / "report.html")
    verdict: str = again.record.shadows.verdicts["shape"]
    return again.failures(factor="shape").filter(pl.lit(verdict != "inert"))


def pairs_of(manifest: Path) -> th.Gallery:
    try:
        return th.read_manifest(manifest).gallery
    except th.BadInput as error:
        raise SystemExit(str(error)) from error


def examples_of(records: Path, pictures: Path) -> int:
    return len(th.LlavaJson(records, pictures))


def settings() -> th.LaverConfig:
    return th.LaverConfig(branch="joint")
