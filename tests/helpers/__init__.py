"""What tests share: builders of small real things, and servers and scripts that run as processes of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

HELPERS = Path(__file__).parent
TESTS = HELPERS.parent
REPOSITORY = TESTS.parent
# Files of a minute or more, the longest first: they are handed out before all others, so that the workers end together.
LONGEST = (
    "fuzz/test_malformed_input.py",
    "invariants/test_trajectories.py",
    "training/test_fsdp2.py",
    "training/test_stages.py",
    "training/test_interrupts.py",
    "studies/test_grid.py",
    "studies/test_tour.py",
    "studies/test_ray.py",
    "asking/test_endpoint_servers.py",
    "docs/test_howto.py",
    "cli/test_survey_cli.py",
    "measurement/internals/test_causal.py",
    "report/test_report_inside.py",
    "test_verdict_rates.py",
)


def script_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process that runs a script of `helpers`: with `tests` on its path."""
    path = os.pathsep.join(filter(None, [str(TESTS), os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, "PYTHONPATH": path, **(extra or {})}
