"""Steps that are shown, of scripts and notebooks."""

from __future__ import annotations

import pytest

from theodolite.records.progress import shown_steps, silent_steps


def test_a_step_is_shown_from_its_start_to_its_end_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_steps("questions", "20 pictures") as progress:
        started = capsys.readouterr()
        assert "questions" in started.err and started.out == ""
        progress(5, 20, "note")
        progress(20, 20)
    ended = capsys.readouterr()
    assert "questions: 100%" in ended.err and "20/20" in ended.err and ended.out == ""


def test_a_step_that_ends_early_is_full_and_silent_steps_show_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with shown_steps("questions", "kept from an earlier run"):
        pass
    assert "questions: 100%" in capsys.readouterr().err
    with silent_steps("questions", "20 pictures") as progress:
        progress(1, 2)
    assert capsys.readouterr() == ("", "")
