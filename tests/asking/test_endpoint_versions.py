"""What of a server's answers is asked for again: another version's, empty and cut-off ones; and letters of next to no probability."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers.endpoint_askers import ASKS, PICTURES, asker_at, questions
from helpers.endpoint_server import Asked, Reply, by_pixels, refused, said, serving
from theodolite.asking.endpoint.asker import CostAsker, CostEstimate, EndpointAsker
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.records.errors import BadInput


def chosen(asker: EndpointAsker) -> list[int | None]:
    return [answer.chosen for answer in asker.ask(PICTURES, ASKS)]


def left_to_ask(asker: EndpointAsker, cache: ResponseCache) -> int:
    """Requests by the estimate of a dry run."""
    costs: list[CostEstimate] = []
    CostAsker(asker.settings, cache, costs.append).ask(PICTURES, ASKS)
    return costs[0].num_requests


def test_a_new_version_of_the_model_is_asked_anew_and_an_old_one_found_again(tmp_path: Path) -> None:
    now: dict[str, str | None] = {"model": "m-1", "fingerprint": "fp_a"}

    def reply(asked: Asked) -> Reply:
        return said("A" if now == {"model": "m-1", "fingerprint": "fp_a"} else "B", **now)  # type: ignore[arg-type]

    cache = ResponseCache(tmp_path / "c.sqlite")
    with serving(reply) as server:
        counts = []
        for version in (("m-1", "fp_a"), ("m-1", "fp_a"), ("m-1", "fp_b"), ("m-2", "fp_b"), ("m-1", "fp_a"), ("m-1", None)):
            now |= {"model": version[0], "fingerprint": version[1]}
            before = questions(server)
            asker = asker_at(server, ResponseCache(tmp_path / "c.sqlite"))
            assert chosen(asker) == [0 if version == ("m-1", "fp_a") else 1] * len(ASKS)
            counts.append(questions(server) - before)
            config = asker.describe()
            assert config.served_as == (version[0],) and config.fingerprints == ((version[1],) if version[1] else ())
            assert left_to_ask(asker, cache) == 0
    assert counts == [len(ASKS), 0, len(ASKS), len(ASKS), 0, len(ASKS)]


def test_machines_of_one_model_with_fingerprints_of_their_own_are_one_server(tmp_path: Path) -> None:
    def reply(asked: Asked) -> Reply:
        return said("A", fingerprint=f"fp_{asked.number % 3}")

    with serving(reply) as server:
        first = asker_at(server, ResponseCache(tmp_path / "c.sqlite"))
        chosen(first)
        assert first.describe().fingerprints == ("fp_0", "fp_1", "fp_2")
        before = questions(server)
        for _ in range(3):
            assert chosen(asker_at(server, ResponseCache(tmp_path / "c.sqlite"))) == [0] * len(ASKS)
        assert questions(server) == before


def test_a_server_that_names_no_model_in_its_answers_is_known_by_its_list() -> None:
    cache = ResponseCache(None)
    with serving(lambda asked: said("A", model=None)) as server:
        for models, asked in ((["org/tiny", "other"], len(ASKS)), (["org/tiny"], 0), (["new"], len(ASKS)), ([], len(ASKS)), ([], 0)):
            server.models = models
            before = questions(server)
            asker = asker_at(server, cache)
            chosen(asker)
            assert questions(server) - before == asked, models
            assert asker.describe().served_as == tuple(models[:1])


def test_what_was_answered_is_there_without_the_server(tmp_path: Path) -> None:
    state = {"up": True}

    def reply(asked: Asked) -> Reply:
        return by_pixels(asked) if state["up"] else refused(503, "closed for the night")

    with serving(reply) as server:
        whole = chosen(asker_at(server, ResponseCache(tmp_path / "c.sqlite")))
        state["up"] = False
        asker = asker_at(server, ResponseCache(tmp_path / "c.sqlite"))
        assert chosen(asker) == whole and "closed for the night" in asker.notices[0]
        with pytest.raises(BadInput, match="closed for the night"):
            asker_at(server, ResponseCache(None)).ask(PICTURES, ASKS)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (said("", finish="length"), "length"),
        (said(None, finish="content_filter"), "content_filter"),
        (said(" \n", finish="stop"), "stop"),
        (said("The colour of the", finish="length"), "length"),
        (said("<think>Let me look at", finish="length"), "length"),
    ],
    ids=["empty", "nothing", "blank", "cut off", "thinking"],
)
def test_an_empty_or_cut_off_answer_is_kept_with_its_reason_and_asked_for_again_next_time(tmp_path: Path, bad: Reply, reason: str) -> None:
    state = {"bad": True}

    def reply(asked: Asked) -> Reply:
        return bad if state["bad"] and asked.picture.tobytes() == PICTURES[2].tobytes() else by_pixels(asked)

    path = tmp_path / "c.sqlite"
    of_bad = [at for at, ask in enumerate(ASKS) if ask.picture == 2]
    with serving(reply) as server:
        asker = asker_at(server, ResponseCache(path))
        assert [at for at, choice in enumerate(chosen(asker)) if choice is None] == of_bad
        assert f"{len(of_bad)} answers were empty or cut off (finish_reason: {reason} {len(of_bad)})" in " ".join(asker.notices)
        before = questions(server)
        assert chosen(asker).count(None) == len(of_bad) and questions(server) == before  # within a session each is asked once
        assert reason.encode() in path.read_bytes() or reason.encode() in path.with_name("c.sqlite-wal").read_bytes()
        assert left_to_ask(asker, ResponseCache(path)) == len(of_bad)
        assert chosen(asker_at(server, ResponseCache(path))).count(None) == len(of_bad) and questions(server) == before + len(of_bad)
        state["bad"] = False
        answers = chosen(asker_at(server, ResponseCache(path)))
        assert None not in answers and questions(server) == before + 2 * len(of_bad)
        assert chosen(asker_at(server, ResponseCache(path))) == answers and questions(server) == before + 2 * len(of_bad)


def test_an_answer_that_names_a_choice_before_its_limit_is_not_paid_for_twice() -> None:
    cache = ResponseCache(None)
    with serving(lambda asked: said("A. red, as can be seen in the", finish="length")) as server:
        assert chosen(asker_at(server, cache)) == [0] * len(ASKS)
        before = questions(server)
        asker = asker_at(server, cache)
        assert chosen(asker) == [0] * len(ASKS) and questions(server) == before and "cut off" not in " ".join(asker.notices)


def test_log_probabilities_that_are_missing_once_are_asked_for_again_and_one_token_is_not_cut_off() -> None:
    state = {"bad": True}

    def reply(asked: Asked) -> Reply:
        bad = state["bad"] and asked.picture.tobytes() == PICTURES[2].tobytes()
        return said("A", None if bad else {"A": 0.9, "B": 0.05}, finish="length")

    cache = ResponseCache(None)
    with serving(reply) as server:
        assert chosen(asker_at(server, cache)).count(None) == 2
        state["bad"] = False
        before = questions(server)
        assert chosen(asker_at(server, cache)) == [0] * len(ASKS) and questions(server) == before + 2


def words_first(asked: Asked) -> Reply:
    """A server whose likeliest first tokens are words, and which answers rightly in text."""
    letter = "AB"[int(asked.picture.astype(np.int64).sum()) % 2]
    return said(f"The answer is {letter}.", {"The": 0.99, "A": 6e-6, "B": 1e-6})


def test_letters_with_next_to_no_probability_are_not_scored_and_the_text_is_read() -> None:
    with serving(words_first) as server:
        asker = asker_at(server)
        answers = asker.ask(PICTURES, ASKS)
        assert asker.describe().answers == "text"
        assert [answer.chosen for answer in answers] == [int(PICTURES[ask.picture].astype(np.int64).sum()) % 2 for ask in ASKS]
        forced = asker_at(server, answers="logprobs").ask(PICTURES, ASKS)
    assert all(answer.chosen is None and answer.outside is not None and answer.outside > 0.9999 for answer in forced)
