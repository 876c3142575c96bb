"""The chart library's script, which every page holds: bundled once, then taken from the cache folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import vl_convert

from theodolite.report.vega import chart_script


def test_the_script_is_bundled_once_and_kept_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEODOLITE_CACHE", str(tmp_path))
    first = chart_script.__wrapped__()
    assert "vegaEmbed" in first and [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()] == [first]
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: pytest.fail("bundled again"))
    assert chart_script.__wrapped__() == first


def test_a_folder_that_cannot_be_written_is_no_hindrance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("THEODOLITE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: "script")
    assert chart_script.__wrapped__() == "script"


def test_a_script_that_would_end_the_element_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEODOLITE_CACHE", str(tmp_path))
    monkeypatch.setattr(vl_convert, "javascript_bundle", lambda snippet: "</script>")
    with pytest.raises(ValueError, match="would end the page's script element"):
        chart_script.__wrapped__()
    assert list(tmp_path.iterdir()) == []
