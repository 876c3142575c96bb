"""The claims of a study's page: filtered, sorted and taken away as those of a survey are, and counted by their source."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import study_records as made
from helpers.live_browser import WINDOWS, grave_faults, overflow, show, window
from helpers.parsed_page import Page
from theodolite.report.study.page import claim_families, claims_address, write_study_page

if TYPE_CHECKING:
    from playwright.sync_api import Browser

STUDY = made.study()
SHOWN = "[...document.querySelectorAll('tr[data-claim]')].filter((row) => row.checkVisibility()).map((row) => row.dataset.claim)"
COUNT = "document.getElementById('claim-count').textContent"


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = made.write(tmp_path_factory.mktemp("study") / "flip", STUDY, made.grid_runs(seeds=(0, 1)))
    write_study_page(home)
    return home / "index.html"


def test_sources_are_counted_by_finding(page_path: Path) -> None:
    counts = Counter((claim.source, claim.finding) for claim in STUDY.claims)
    families = claim_families(STUDY.claims)
    assert len(families) > 1 and sum(family.num_claims for family in families) == len(STUDY.claims)
    assert {(each.source, finding): number for each in families for finding, number in each.num_by_finding.items()} == counts
    page = Page(page_path.read_text(encoding="utf-8"))
    links = [found["href"] for found in page.of("a") if found.get("href", "").startswith("#claims?")]
    assert links == [
        address
        for each in families
        for address in (
            *(claims_address(each.source, finding) for finding in ("holds", "fails", "undecided") if each.num_by_finding[finding]),
            claims_address(each.source),
        )
    ]


def test_a_count_leads_to_its_claims_and_filters_write_the_address(page_path: Path, browser: Browser) -> None:
    with window(browser) as (page, console):
        show(page, page_path)
        assert page.evaluate(SHOWN) == [claim.name for claim in STUDY.claims]
        source, finding = STUDY.claims[0].source, STUDY.claims[0].finding
        page.locator(f'a[href="{claims_address(source, finding)}"]').click()
        wanted = [claim.name for claim in STUDY.claims if (claim.source, claim.finding) == (source, finding)]
        assert page.evaluate(SHOWN) == wanted and len(wanted) < len(STUDY.claims)
        assert page.evaluate(COUNT) == f"{len(wanted)} of {len(STUDY.claims)} claims"
        page.locator("#claim-filters [name=source]").select_option("")
        page.locator("#claim-filters [name=finding]").select_option("undecided")
        assert page.evaluate(SHOWN) == [claim.name for claim in STUDY.claims if claim.finding == "undecided"]
        assert page.url.endswith("#claims?finding=undecided")
        page.locator("#claim-filters button").click()
        page.wait_for_function(f"{COUNT} === '{len(STUDY.claims)} of {len(STUDY.claims)} claims'")
        assert page.url.endswith("#claims")
        page.locator("table.claims th button", has_text="finding").click()
        findings = page.evaluate("[...document.querySelectorAll('tr[data-claim]')].map((row) => row.dataset.finding)")
        assert findings == sorted(findings) and len(set(findings)) == 3
        assert page.locator("[aria-label='Save as CSV: Claims with their rules and findings']").count() == 1
        assert console == []


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_the_study_page_has_no_grave_fault(page_path: Path, browser: Browser, width: int, theme: str) -> None:
    with window(browser, width, theme) as (page, console):
        show(page, page_path)
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        assert (grave_faults(page), console, overflow(page)) == ([], [], 0)
