"""The pages: the site builds without a warning, lines are short, links outside the site lead somewhere, generated pages are current."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
WIDTH = 120
# Pages that scripts write whole.
GENERATED = {DOCS / "reference" / "cli.md", DOCS / "reference" / "records.md"}
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
WRITTEN = [page for page in PAGES if page not in GENERATED]


def build(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """`make docs`, from a folder with mkdocs.yml, into another."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=600)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


def test_the_site_builds_without_a_warning_and_holds_every_page(site: Path) -> None:
    pages = {path.relative_to(DOCS).with_suffix(".html") for path in DOCS.rglob("*.md")}
    pages = {page.with_name("index.html") if page.name == "README.html" else page for page in pages}
    assert [page for page in sorted(pages) if not (site / page).is_file()] == []
    assert (site / "results" / "flip" / "index.html").read_bytes() == (DOCS / "results" / "flip" / "index.html").read_bytes()


def test_the_site_needs_no_network(site: Path) -> None:
    for page in (site / "index.html", site / "reference" / "api.html"):
        loaded = re.findall(r'<(?:script|link|img)\b[^>]*\b(?:src|href)="(https?:[^"]+)"', page.read_text(encoding="utf-8"))
        assert loaded == []


def test_a_dead_link_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    before, nav, _ = settings.partition("\nnav:\n")
    assert nav
    before = before.replace("extra_css:\n  - site.css\n", "").partition("  - mkdocstrings:")[0]
    (tmp_path / "mkdocs.yml").write_text(before, encoding="utf-8")
    index = tmp_path / "docs" / "index.md"
    index.write_text("# One\n\n[here](#one)\n", encoding="utf-8")
    assert build(tmp_path, tmp_path / "site").returncode == 0
    for link in ("nowhere.md", "#two"):
        index.write_text(f"# One\n\n[there]({link})\n", encoding="utf-8")
        done = build(tmp_path, tmp_path / "site")
        assert done.returncode != 0 and link in done.stdout + done.stderr
        shutil.rmtree(tmp_path / "site", ignore_errors=True)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_are_short(page: Path) -> None:
    """But for tables, what scripts write between their marks, lines of JSON, and pictures."""
    text = page.read_text(encoding="utf-8")
    for begin, end in (("<!-- scripts/describe_families.py", "<!-- to here -->"), ("```json\n", "```")):
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not line.startswith(("|", "!["))]
    assert [line for line in lines if len(line) > WIDTH] == []


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_of_pages_outside_the_site_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")) if "://" not in target]
    assert targets and [target for target in targets if not (ROOT / target).exists()] == []


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "describe_cli.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def test_the_page_of_the_api_has_every_public_name() -> None:
    import theodolite

    listed = re.findall(r"^::: theodolite\.(\w+)$", (DOCS / "reference" / "api.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(listed) == sorted(theodolite.__all__)
