"""What an endpoint will not answer, or not yet: waits that it asks for, single questions that it refuses, settings that cannot be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from helpers.endpoint_askers import ASKS, PICTURES, asker_at, questions
from helpers.endpoint_server import Asked, Reply, by_pixels, refused, said, serving
from theodolite.asking.endpoint.capabilities import top_of
from theodolite.asking.endpoint.channel import EndpointSettings, _retry_after_s
from theodolite.commands.endpoint import run_endpoint_survey
from theodolite.commands.progress import Steps
from theodolite.commands.survey import TargetArguments
from theodolite.records.errors import BadInput
from theodolite.worlds.easy_vqa.world import EasyVQA


def test_retry_after_is_read_as_seconds_or_a_date_and_a_long_one_ends_the_run() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    assert _retry_after_s({"retry-after": "2.5"}) == 2.5 and _retry_after_s({}) is None and _retry_after_s({"retry-after": "soon"}) is None
    assert _retry_after_s({"retry-after": "nan"}) is None
    assert _retry_after_s({"retry-after": format_datetime(now + timedelta(seconds=7), usegmt=True)}, lambda: now) == 7.0
    with serving(lambda asked: Reply({}, 429, {"Retry-After": "9999"})) as server, pytest.raises(BadInput, match="wait 9999 s"):
        asker_at(server).ask(PICTURES, ASKS)


def test_a_wait_of_nothing_does_not_take_the_place_of_backing_off(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda asked: Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0"})) as server:
        asker = asker_at(server, first_wait_s=0.01, longest_wait_s=0.02)
        waits: list[float] = []
        monkeypatch.setattr(asker.channel, "_pause", waits.append)
        with pytest.raises(BadInput, match="slow down"):
            asker.ask(PICTURES, ASKS[:1])
    assert [wait for wait in waits if wait > 0] and all(0.005 <= wait <= 0.02 for wait in waits if wait > 0)


def test_a_single_question_that_is_refused_is_unanswered_and_asked_no_more() -> None:
    def reply(asked: Asked) -> Reply:
        bad = asked.picture.tobytes() == PICTURES[2].tobytes()
        return refused(400, "this picture is against our rules") if bad else by_pixels(asked)

    with serving(reply) as server:
        asker = asker_at(server)
        answers = asker.ask(PICTURES, ASKS)
        before = questions(server)
        again = asker.ask(PICTURES, ASKS)
        assert questions(server) == before
    gone = [at for at, answer in enumerate(answers) if answer.chosen is None]
    assert gone == [at for at, ask in enumerate(ASKS) if ask.picture == 2] and gone
    assert [answer.chosen for answer in again] == [answer.chosen for answer in answers]
    assert "against our rules" in " ".join(asker.notices) and f"{len(gone)} of them" in " ".join(asker.notices)


def test_a_server_whose_first_tokens_are_no_letters_is_read_as_text() -> None:
    def reply(asked: Asked) -> Reply:
        found = said("A")
        found.body["choices"][0]["logprobs"] = {"content": [{"token": "<think>", "logprob": -0.1, "top_logprobs": []}]}
        return found

    with serving(reply) as server:
        asker = asker_at(server)
        answers = asker.ask(PICTURES, ASKS[:3])
        assert asker.describe().answers == "text" and asker.describe().offers.logprobs == 0
    assert [answer.chosen for answer in answers] == [0, 0, 0]


@pytest.mark.parametrize("held", [[1], {"content": {"a": 1}}, {"content": [{"top_logprobs": ["x"]}]}, {"content": [3]}, "words", None])
def test_log_probabilities_that_are_nonsense_are_none(held: object) -> None:
    assert top_of({"choices": [{"logprobs": held}]}) is None


@pytest.mark.parametrize("address", ["http://[::1/v1", "http://host:abc/v1", "host/v1", "ftp://host/v1"])
def test_what_is_no_web_address_is_refused(address: str) -> None:
    with pytest.raises(BadInput, match="no web address"):
        EndpointSettings(address, "m")


def test_a_key_with_signs_that_no_key_has_is_refused_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "\u201csk-12345678\u201d")
    with pytest.raises(BadInput, match="OPENAI_API_KEY holds characters") as caught:
        EndpointSettings("http://localhost:1/v1", "m").key()
    assert "12345678" not in str(caught.value)


def test_a_server_that_breaks_on_fields_that_it_does_not_know_is_asked_in_plainer_words() -> None:
    def reply(asked: Asked) -> Reply:
        if "logprobs" in asked.body or "seed" in asked.body:
            return Reply({"error": {"message": "internal error"}}, 500)
        return by_pixels(asked)

    with serving(reply) as server:
        asker = asker_at(server)
        answers = asker.ask(PICTURES, ASKS[:2])
        offers = asker.describe().offers
    assert (offers.logprobs, offers.seed, offers.temperature) == (0, False, True)
    assert all(answer.chosen is not None for answer in answers)


def test_the_cost_of_a_survey_is_told_once_for_all_of_it_before_it_starts(tmp_path: Path) -> None:
    """Official questions are asked after the pairs; what they cost is said before."""
    told: list[str] = []
    console = Console(file=StringIO(), width=200)
    with serving(by_pixels) as server:
        arguments = TargetArguments("easy_vqa", None, "shape", None, 2, None)
        done = run_endpoint_survey("tiny", server.url, tmp_path / "out", arguments, overwrite=False, steps=Steps(console), dry_run=True)
        told = [line for line in console.file.getvalue().splitlines() if "requests after the cache" in line]
        assert done is None and len(told) == 1 and not server.asked
    number = int(told[0].split(" questions")[0].replace(",", ""))
    assert number > len(EasyVQA().official_split("test").text)
    assert list(tmp_path.iterdir()) == []
