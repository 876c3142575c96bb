"""A server that fails four requests of five, each in one of eight ways: the record of a survey equals the one without faults."""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest

from helpers.command_line import run_warm
from helpers.endpoint_askers import ASKS, PICTURES, asker_at, questions
from helpers.endpoint_server import Asked, Reply, Server, by_pixels, refused, said, serving
from helpers.tiny_llava import WORLD
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel

SHARE = 0.1  # of requests, for each fault
WRONG_JSON = (
    b"null",
    b"[1, 2]",
    b'{"choices": []}',
    b'{"choices": [{}]}',
    b'{"choices": [{"message": "A"}]}',
    b'{"error": {"message": "no"}}',
    b"[" * 100_000,
)
FAULTS = ("timeout", "429", "500", "half body", "wrong JSON", "empty 200", "slow drip", "dropped keep-alive")


class Faulty:
    """Replies of a server: faults in a share of the requests, by the seed and the number of the request, while `is_on`."""

    def __init__(self, answers: object = by_pixels, seed: int = 0) -> None:
        self.answers, self.seed, self.is_on = answers, seed, False
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, asked: Asked) -> Reply:
        good: Reply = self.answers(asked)  # type: ignore[operator]
        rng = random.Random(f"{self.seed} {asked.number}")
        place = int(rng.random() / SHARE)
        if not self.is_on or place >= len(FAULTS):
            return good
        with self._lock:
            self.counts[FAULTS[place]] += 1
        return bad_reply(FAULTS[place], good, rng)


def bad_reply(fault: str, good: Reply, rng: random.Random) -> Reply:
    """A fault in place of a good reply. A kept-alive connection that is dropped has answered this request, or has not."""
    if fault == "429":
        return Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": rng.choice(["0", "0.02", "soon"])})
    body = json.dumps(good.body).encode()
    return {
        "timeout": Reply(stall=True),
        "500": refused(rng.choice([500, 502, 503, 504]), "internal error"),
        "half body": Reply(body, half=True),
        "wrong JSON": Reply(rng.choice(WRONG_JSON)),
        "empty 200": Reply(b""),
        "slow drip": Reply(b" " * 4000 + body, drip=True),
        "dropped keep-alive": Reply(good.body, good.status, hang_up=True) if rng.random() < 0.5 else Reply(drop=True),
    }[fault]


def survey(server: Server, out: Path, scenes: int) -> subprocess.CompletedProcess[str]:
    """The command, with a timeout and waits that suit a server on this machine."""
    pairs = ("--world", "shapes", "--ask", "shape,row", "--prompt", "letters", "--picture-size", "32", "--scenes", scenes)
    quick = ("--timeout", 0.25, "--retries", 90, "--longest-wait", 0.05, "--concurrency", 24)
    words = map(str, ("survey", "org/tiny", "--endpoint", server.url, "--out", out, *pairs, *quick))
    return run_warm("-m", "theodolite", *words, environment={"COLUMNS": "200"})


def with_letters(asked: Asked) -> Reply:
    """The letter with its probability, so that a survey reads log-probabilities."""
    plain = by_pixels(Asked(asked.number, {name: value for name, value in asked.body.items() if name != "logprobs"}, asked.headers))
    letter = plain.body["choices"][0]["message"]["content"]
    return said(letter, {letter: 0.9, "the": 0.1}) if "logprobs" in asked.body else plain


def same_record(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in ("survey.json", "rows.parquet"))


def check_counts(reply: Faulty, num_questions: int) -> None:
    assert set(reply.counts) == set(FAULTS) and min(reply.counts.values()) > num_questions * SHARE
    print(f"{num_questions} questions, {reply.counts.total()} faults: {dict(reply.counts)}")


def test_the_record_of_a_faulty_server_equals_that_of_a_good_one(tmp_path: Path) -> None:
    reply = Faulty(with_letters)
    with serving(reply) as server:
        for name in ("good", "faulty"):
            reply.is_on = name == "faulty"
            asker = asker_at(server, timeout_s=0.2, retries=90, longest_wait_s=0.03, concurrency=24)
            options = SurveyOptions(policy="shape", num_scenes=2, title="m", prompt="letters", picture_size=32)
            survey_model(SurveyedModel(asker, 32, asker.describe), WORLD, options).save(tmp_path / name)
            if name == "good":
                num_questions = len(server.answered)
    assert num_questions > 150
    check_counts(reply, num_questions)
    assert same_record(tmp_path / "good", tmp_path / "faulty")


@pytest.mark.exhaustive
@pytest.mark.parametrize("answers", [by_pixels, with_letters], ids=["text", "letters"])
def test_the_record_of_2000_questions_to_a_faulty_server_equals_that_of_a_good_one(tmp_path: Path, answers: object) -> None:
    reply = Faulty(answers)
    with serving(reply) as server:
        done = survey(server, tmp_path / "good", 68)
        assert done.returncode == 0, done.stderr
        num_questions = len(server.answered)
        reply.is_on = True
        done = survey(server, tmp_path / "faulty", 68)
        assert done.returncode == 0 and done.stderr == "", done.stderr
    assert num_questions >= 2000
    check_counts(reply, num_questions)
    assert same_record(tmp_path / "good", tmp_path / "faulty")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in range(1, 40))])
def test_what_a_faulty_server_offers_is_what_it_offers_without_faults(seed: int) -> None:
    """A trial that fails by chance must not change how all answers are read."""
    reply = Faulty(with_letters, seed)
    reply.is_on = True
    with serving(reply) as server:
        offers = asker_at(server, timeout_s=0.2, retries=90).detect()
    assert (offers.logprobs, offers.seed, offers.temperature, offers.limit_name) == (20, True, True, "max_tokens")


def test_empty_answers_of_one_run_are_asked_for_again_by_the_next() -> None:
    """A whole response with an empty text is an answer: it counts as unanswered, and the next run asks again."""
    rng, state = random.Random(0), {"empty": True}

    def reply(asked: Asked) -> Reply:
        is_empty = state["empty"] and "colour" in asked.question and rng.random() < 4 * SHARE
        return said("", finish="stop") if is_empty else by_pixels(asked)

    with serving(reply) as server:
        cache = ResponseCache(None)
        unanswered = [answer.chosen for answer in asker_at(server, cache).ask(PICTURES, ASKS)].count(None)
        assert 0 < unanswered < len(ASKS)
        state["empty"] = False
        again = [answer.chosen for answer in asker_at(server, cache).ask(PICTURES, ASKS)]
        assert again == [answer.chosen for answer in asker_at(server).ask(PICTURES, ASKS)]
        assert None not in again


def test_the_cache_knows_the_model_and_the_version_of_a_faulty_server(tmp_path: Path) -> None:
    """Fingerprints that change within a run, among faults: each answer is kept under its own, and found again."""
    versions = ("fp-1", "fp-2")
    reply = Faulty(lambda asked: said(by_pixels(asked).body["choices"][0]["message"]["content"], fingerprint=versions[asked.number % 2]))
    reply.is_on = True
    with serving(lambda asked: reply(asked) if "logprobs" not in asked.body else refused(422, "logprobs")) as server:
        asker = asker_at(server, ResponseCache(tmp_path / "c.sqlite"), timeout_s=0.2, retries=90)
        answers = [answer.chosen for answer in asker.ask(PICTURES, ASKS)]
        assert asker.describe().fingerprints == versions and asker.describe().served_as == ("tiny-1",)
        before = questions(server)
        again = asker_at(server, ResponseCache(tmp_path / "c.sqlite"), timeout_s=0.2, retries=90)
        assert [answer.chosen for answer in again.ask(PICTURES, ASKS)] == answers and questions(server) == before
