"""The server of `theodolite view`: what it refuses, the headers of every answer, and its pages as a browser shows them."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from helpers.command_line import theodolite
from helpers.requirements import require
from helpers.view_server import HOSTILE, view_server, write_runs

require("starlette", "uvicorn", "playwright", "axe_playwright_python")

from playwright.sync_api import Browser, expect  # noqa: E402

from helpers.live_browser import WINDOWS, grave_faults, overflow, show, window  # noqa: E402
from theodolite.commands.view.serve import has_display  # noqa: E402

PAGES = (
    "",
    "rows?run=a/first&outcome=leaked",
    "row?run=a/first&at=3&page=1",
    "compare?run=a/first&run=a/second",
    "rows?run=unreadable-rows",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("view") / "runs"
    folder.mkdir()
    with view_server(write_runs(folder)) as (address, _):
        yield address


def asked(address: str, path: str = "/", method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    """The response to a request with these headers, and its text."""
    connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
    connection.putrequest(method, path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


# What is refused


def test_it_listens_on_the_loopback_interface_alone(address: str) -> None:
    port = urlsplit(address).port
    assert port is not None and asked(address)[0].status == 200
    others = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)} - {"127.0.0.1"}
    for other in [*others, "127.0.0.2"]:
        with pytest.raises(OSError):
            socket.create_connection((other, port), timeout=5).close()


@pytest.mark.parametrize("host", ["example.com", "127.0.0.1", "127.0.0.1:1", "127.0.0.1.example.com", "localhost.example.com:{port}", ""])
def test_another_host_is_refused(address: str, host: str) -> None:
    response, text = asked(address, Host=host.format(port=urlsplit(address).port))
    assert response.status == 403 and "<html" not in text


def test_its_own_names_are_answered(address: str) -> None:
    for host in ("127.0.0.1", "localhost"):
        own = f"{host}:{urlsplit(address).port}"
        assert asked(address, Host=own, Origin=f"http://{own}")[0].status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://example.com"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ],
    ids=str,
)
def test_other_sites_are_refused(address: str, headers: dict[str, str]) -> None:
    response, text = asked(address, **headers)
    assert response.status == 403 and "<html" not in text


def test_a_link_elsewhere_may_be_followed(address: str) -> None:
    headers = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert asked(address, **headers)[0].status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_requests_that_change_something_are_refused(address: str, method: str) -> None:
    response, _ = asked(address, method=method)
    assert (response.status, response.getheader("Allow")) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/report?run=../secret",
        "/report?run=%2e%2e%2fsecret",
        "/report?run=/etc",
        "/rows?run=link",
        "/rows?run=outside",
        "/../secret/survey.json",
        "/a/first/survey.json",
        "/row?run=a/first&at=..%2f1",
        "/compare?run=a/first&run=../secret",
    ],
)
def test_nothing_out_of_the_folder_is_shown(address: str, path: str) -> None:
    response, text = asked(address, path)
    assert response.status == 404 and "Not shown" in text and "shape only" not in text


@pytest.mark.parametrize("path", ["/", "/rows?run=a/first", "/report?run=a/first", "/nothing", "/report?run=broken"])
def test_every_answer_lets_only_its_own_scripts_run_and_is_kept_nowhere(address: str, path: str) -> None:
    (first, text), (second, _) = asked(address, path), asked(address, path, Host="example.com")
    for response in (first, second):
        assert response.getheader("Cache-Control") == "no-store" and response.getheader("X-Frame-Options") == "DENY"
        assert response.getheader("X-Content-Type-Options") == "nosniff"
        policy = response.getheader("Content-Security-Policy", "")
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "base-uri 'none'" in policy
        assert not re.search(r"script-src[^;]*('unsafe-inline'|http|\*)", policy)
    policy = first.getheader("Content-Security-Policy", "")
    (nonce,) = set(re.findall(r"'nonce-([\w-]+)'", policy))
    assert set(re.findall(r'<script nonce="([^"]+)">', text)) == {nonce}
    assert ("sandbox allow-scripts allow-downloads" in policy) == path.startswith("/report?run=a")


def test_nonces_are_fresh(address: str) -> None:
    assert asked(address)[0].getheader("Content-Security-Policy") != asked(address)[0].getheader("Content-Security-Policy")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/report?run=broken", "broken/survey.json is no survey record of version 2"),
        ("/rows?run=unreadable-rows", "rows.parquet cannot be read as the rows of a survey"),
        ("/report?run=unreadable-rows", "cannot be read as the rows of a survey"),
        ("/rows?run=hostile", "hostile holds no rows.parquet, so its rows cannot be shown"),
        ("/rows?run=a/first&factor=texture", "no row has &#39;texture&#39; as its factor"),
        ("/rows?run=a/first&page=two", "page is a number, not &#39;two&#39;"),
        ("/compare?run=a/first", "two surveys can be compared, not 1; choose two in the list"),
        ("/?sort=size", "runs cannot be sorted by &#39;size&#39;"),
    ],
)
def test_what_cannot_be_shown_is_said_and_the_server_goes_on(address: str, path: str, sentence: str) -> None:
    response, text = asked(address, path)
    assert response.status == 404 and sentence in text
    assert asked(address)[0].status == 200


# Pages in a browser


@pytest.mark.parametrize(("width", "theme"), WINDOWS)
def test_pages_are_accessible_at_both_widths_in_both_themes(address: str, browser: Browser, width: int, theme: str) -> None:
    with window(browser, width, theme) as (page, console):
        for path in PAGES:
            show(page, address + path)
            assert grave_faults(page) == [] and overflow(page) == 0, path
        assert [line for line in console if "status of 404" not in line] == []


def test_a_survey_is_found_opened_and_left(address: str, browser: Browser) -> None:
    with window(browser) as (page, console):
        show(page, address)
        expect(page.locator("table.runs tbody tr")).to_have_count(4)
        expect(page.locator("#damaged li")).to_have_count(2)
        assert page.locator("tr[data-run=hostile] th a").text_content() == HOSTILE
        page.get_by_role("link", name="title").click()
        titles = page.locator("table.runs tbody th a").all_text_contents()
        assert titles == sorted(titles, key=str.lower)
        page.get_by_role("link", name="title").click()
        assert page.locator("table.runs tbody th a").all_text_contents() == titles[::-1]
        page.get_by_role("searchbox").fill("shadow a/")
        page.get_by_role("button", name="Search").click()
        expect(page.locator("table.runs tbody tr")).to_have_count(1)
        page.get_by_label("Theme").select_option("dark")
        page.get_by_role("link", name="shape only", exact=True).click()
        page.wait_for_function("[...document.querySelectorAll('[data-spec]')].every((box) => box.querySelector('svg'))")
        assert page.title() == "shape only on shapes: theodolite" and page.locator("html").get_attribute("data-theme") == "dark"
        assert page.evaluate("self.origin") == "null"  # the sandbox: no other page of the server can be read from here
        page.evaluate("history.replaceState(null, '', '#numbers')")
        with page.expect_download() as download:
            page.get_by_text("Export").click()
            page.get_by_role("button", name="Record (JSON)").click()
        assert download.value.suggested_filename == "shape-only.json"
        page.get_by_role("link", name="All surveys").click()
        expect(page.locator("table.runs tbody tr")).to_have_count(4)
        assert console == []


def test_rows_are_filtered_turned_over_and_opened(address: str, browser: Browser) -> None:
    with window(browser) as (page, console):
        show(page, f"{address}rows?run=a/first")
        num_rows = int(page.locator("header .run span").inner_text().split()[0])
        page.get_by_label("outcome").select_option("leaked")
        page.get_by_label("factor").select_option("colour")
        page.get_by_role("button", name="Filter").click()
        marks = page.locator("table.rows .mark").all_text_contents()
        assert set(marks) == {"leaked"} and 0 < len(marks) <= 50
        assert all("colour:" in text for text in page.locator("table.rows td:nth-child(3)").all_text_contents())
        page.get_by_role("link", name="Show all").click()
        page.get_by_role("link", name="Next").first.click()
        expect(page.locator("nav.pages").first).to_contain_text(f"51 to 100 of {num_rows}")
        page.locator("tr[data-at='52'] th a").click()
        assert page.title().startswith("Row 52 of shape only") and page.locator("progress").count() == 8
        page.get_by_role("link", name="Back to the rows").click()
        expect(page.locator("nav.pages b").first).to_have_text("2")
        assert console == []


def test_two_surveys_are_compared_from_the_list(address: str, browser: Browser) -> None:
    with window(browser, 360) as (page, console):
        show(page, address)
        for name in ("a/first", "a/second"):
            page.locator(f"input[value='{name}']").check()
        page.get_by_role("button", name="Compare two").click()
        assert page.title().startswith("shape and colour against shape only")
        changed = page.locator("tr[data-change]").evaluate_all("(items) => items.map((item) => item.dataset.change)")
        assert {"shape", "colour"} <= set(changed)
        leak = page.locator("table.differences tr[data-factor=colour][data-query=shape]")
        expect(leak).to_contain_text("moved shrank")
        expect(page.locator("svg.marks").first).to_be_attached()
        page.get_by_role("link", name="All surveys").click()
        expect(page.get_by_role("button", name="Compare two")).to_be_visible()
        assert console == []


def test_scripts_in_a_record_do_not_run(address: str, browser: Browser) -> None:
    with window(browser) as (page, console):
        for path in (
            f"?q={quote(HOSTILE)}",
            "?q=hostile",
            "report?run=hostile",
            f"rows?run=a/first&text={quote(HOSTILE)}",
            f"report?run={quote(HOSTILE)}",
        ):
            show(page, address + path)
        assert [line for line in console if "status of 404" not in line] == []


# Beginning and end


def test_ctrl_c_ends_it_with_one_sentence(tmp_path: Path) -> None:
    with view_server(tmp_path) as (address, process):
        response, text = asked(address)
        assert response.status == 200 and "There is no survey yet" in text
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output, errors) == (130, "", "theodolite: stopped by SIGINT; no record was left half-written\n")


def test_a_browser_opens_the_address_where_there_is_a_display(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    opener = tmp_path / "opener.sh"
    opener.write_text(f'#!/bin/sh\necho "$1" > {opened}.part && mv {opened}.part {opened}\n')
    opener.chmod(0o755)
    with view_server(tmp_path, options=[], environment={"BROWSER": f"{opener} %s", "DISPLAY": ":0"}) as (address, _):
        deadline = time.monotonic() + 60
        while not opened.exists() and time.monotonic() < deadline:
            assert asked(address)[0].status == 200
    assert opened.read_text().strip() == address


@pytest.mark.parametrize(
    ("platform", "variables", "is_there"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "10.0.0.1 22 10.0.0.2 22"}, False),
    ],
)
def test_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch, platform: str, variables: dict[str, str], is_there: bool) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SSH_CONNECTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert has_display() is is_there


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = theodolite("view", tmp_path, "--port", str(port), "--no-open")
    assert done.returncode == 2 and done.stderr.startswith(f"theodolite: port {port} cannot be had (")
    assert done.stderr.endswith("or --port 0 for one that is free\n") and done.stderr.count("\n") == 1


def test_a_folder_that_is_none_and_a_missing_package_are_named(tmp_path: Path) -> None:
    done = theodolite("view", tmp_path / "nothing")
    assert (
        done.returncode == 2
        and done.stderr == f"theodolite: {tmp_path / 'nothing'} is no folder; give one that holds surveys, such as runs\n"
    )
    without = "import sys; sys.modules['uvicorn'] = None; from theodolite.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", without, "view", str(tmp_path)], capture_output=True, text=True, check=False)
    wanted = 'theodolite: view needs the package uvicorn; install it: pip install "theodolite[view]"\n'
    assert (done.returncode, done.stdout, done.stderr) == (2, "", wanted)
