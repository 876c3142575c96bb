"""Files that `compare` and `report` write beside what they print: a page, a model card."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard

from helpers.command_line import theodolite
from helpers.compared_surveys import write_surveys
from helpers.parsed_page import Page


def test_compare_writes_a_page_and_replaces_none_unasked(tmp_path: Path) -> None:
    one, other = write_surveys(tmp_path)
    out = tmp_path / "pages" / "compare.html"
    done = theodolite("compare", one, other, "--html", out)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "verdict of colour: shadow -> identified" in lines and lines[-1] == f"page: {out}"
    html = out.read_text(encoding="utf-8")
    assert "<title>shape and colour against shape only: theodolite</title>" in html
    assert "Verdicts that differ" in Page(html).text
    again = theodolite("compare", one, other, "--html", out)
    assert again.returncode == 2 and "--overwrite" in again.stderr
    assert theodolite("compare", one, other, "--html", out, "--overwrite", "--json").returncode == 0
    assert out.read_text(encoding="utf-8") == html


def test_report_writes_a_model_card_of_one_survey(tmp_path: Path) -> None:
    one, other = write_surveys(tmp_path)
    done = theodolite("report", one, "--out", tmp_path / "page.html", "--model-card", tmp_path / "card.md")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"model card: {tmp_path / 'card.md'}", f"report: {tmp_path / 'page.html'}"]
    assert ModelCard.load(tmp_path / "card.md").data.model_name == "shape only"
    both = theodolite("report", one, other, "--out", tmp_path / "both.html", "--model-card", tmp_path / "both.md")
    assert both.returncode == 2 and "about one survey" in both.stderr and not (tmp_path / "both.html").exists()
    again = theodolite("report", one, "--out", tmp_path / "again.html", "--model-card", tmp_path / "card.md")
    assert again.returncode == 2 and "--overwrite" in again.stderr and not (tmp_path / "again.html").exists()
