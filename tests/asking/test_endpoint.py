"""Models behind endpoints: what is sent, how answers are read, what is kept, and servers that misbehave. All on loopback."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers.endpoint_askers import ASKS, COLOURS, PICTURES, QUICK, asker_at, questions
from helpers.endpoint_server import Asked, Reply, Server, by_pixels, refused, said, serving
from helpers.tiny_llava import WORLD
from theodolite.asking.answer import Answer, Question
from theodolite.asking.endpoint.asker import CostEstimate, jobs_of, stored_capabilities
from theodolite.asking.endpoint.cache import ResponseCache, content_key
from theodolite.asking.endpoint.capabilities import detect_capabilities
from theodolite.asking.endpoint.channel import Channel, EndpointSettings
from theodolite.asking.endpoint.messages import picture_tokens, text_tokens
from theodolite.asking.endpoint.reading import answer_of_text
from theodolite.asking.prompts import write_prompt
from theodolite.measurement.pairs.plan import plan_world
from theodolite.measurement.survey.answers import answer_plan
from theodolite.measurement.survey.compare import compare_records
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.records.endpoint import Capabilities, EndpointConfig
from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent
from theodolite.records.survey import SurveyRecord


def num_responses(path: Path) -> int:
    """Rows of a file of responses."""
    with closing(sqlite3.connect(path)) as base:
        return int(base.execute("SELECT COUNT(*) FROM responses").fetchone()[0])


def test_what_is_shown_arrives_to_the_pixel_and_answers_do_not_depend_on_their_order() -> None:
    waits = iter(range(1000))
    late = threading.Event()

    def slow_first(asked: Asked) -> Reply:
        if "colour" in asked.question and next(waits) == 0:
            late.wait(0.2)
        return by_pixels(asked)

    with serving(slow_first) as server:
        asker = asker_at(server)
        calls: list[tuple[int, int]] = []
        answers = asker.ask(PICTURES, ASKS, lambda done, total, note="": calls.append((done, total)))
        assert calls == sorted(set(calls)) and calls[-1] == (len(ASKS), len(ASKS)) and 1 < server.most_at_once <= 3
        for ask, answer in zip(ASKS, answers, strict=True):
            assert answer.chosen == (int(PICTURES[ask.picture].astype(np.int64).sum()) + len(ask.question)) % 4
            assert answer.outside is None
        config = asker.describe()
    assert config.answers == "text" and config.offers.logprobs == 0 and config.offers.seed and config.served_as == ("tiny-1",)


def test_a_bare_question_is_answered_by_the_text_that_names_a_choice() -> None:
    """The server would score letters, but none were shown: it is read as text, and what names no choice is unanswered."""

    def reply(asked: Asked) -> Reply:
        at = int(asked.picture.astype(np.int64).sum()) % 5
        return said(f"It is {COLOURS[at]}." if at < 4 else "A", {"A": 0.9, "B": 0.1} if asked.body.get("logprobs") else None)

    with serving(reply) as server:
        asker = asker_at(server, prompt="free")
        answers = asker.ask(PICTURES, ASKS)
        assert {asked.prompt for asked in server.asked if "colour" in asked.prompt} == {ask.question for ask in ASKS}
        config = asker.describe()
        assert asker_at(server).detect().logprobs == 20
    found = [int(PICTURES[ask.picture].astype(np.int64).sum()) % 5 for ask in ASKS]
    assert [answer.chosen for answer in answers] == [at if at < 4 else None for at in found] and {4} < set(found)
    assert (config.answers, config.prompt, config.max_tokens, config.score) == ("text", "free", 32, None)


def test_letters_cannot_be_scored_where_none_are_shown() -> None:
    with pytest.raises(BadInput, match="give --prompt letters"):
        EndpointSettings("http://localhost/v1", "m", answers="logprobs")
    assert EndpointSettings("http://localhost/v1", "m", answers="logprobs", prompt="letters").may_score_letters


def test_responses_and_capabilities_of_before_there_were_styles_are_found_again() -> None:
    """The cache's keys, as earlier versions wrote them."""
    settings = EndpointSettings("http://localhost/v1", "m", prompt="letters")
    offers = Capabilities(logprobs=0, seed=True, temperature=True, limit_name="max_tokens")
    (job,) = jobs_of(settings, offers, "text", PICTURES, ASKS[:1])
    assert job.key == "95732b39569b5d23980e52c8b3755602f385c381c4d72e177703d897b63ff7b5"
    cache = ResponseCache(None)
    cache.put(content_key(["offers", "http://localhost/v1", "m", False]), offers.model_dump(mode="json"))
    assert stored_capabilities(settings, cache) == offers


def test_what_a_server_offers_is_found_by_asking(tmp_path: Path) -> None:
    def picky(asked: Asked) -> Reply:
        """Other names, no temperature, at most 5 log-probabilities."""
        if "max_tokens" in asked.body or "temperature" in asked.body or asked.body.get("top_logprobs", 0) > 5:
            return refused(400, "unsupported parameter")
        return said("A", {"A": 0.9, "B": 0.1} if asked.body.get("logprobs") else None)

    def settings(server: Server) -> EndpointSettings:
        return EndpointSettings(server.url, "m", **QUICK)  # type: ignore[arg-type]

    with serving(picky) as server:
        offers = detect_capabilities(Channel(settings(server)))
        assert offers.model_dump() == {"logprobs": 5, "seed": True, "temperature": False, "limit_name": "max_completion_tokens"}
        cache = ResponseCache(tmp_path / "c.sqlite")
        assert asker_at(server, cache).detect() == offers
        before = len(server.asked)
        assert asker_at(server, cache).detect() == offers and len(server.asked) == before
        with pytest.raises(BadInput, match="leave --answers out"), serving(by_pixels) as other:
            asker_at(other, answers="logprobs").ask(PICTURES, ASKS)
    with serving(lambda asked: said("A", None)) as silent:  # takes the field, and tells nothing
        assert detect_capabilities(Channel(settings(silent))).logprobs == 0 and len(silent.asked) == 1


def test_a_server_that_takes_no_pictures_or_no_key_is_refused_in_its_own_words() -> None:
    def blind(asked: Asked) -> Reply:
        pictured = any(part["type"] == "image_url" for part in asked.body["messages"][0]["content"])
        return refused(400, "image_url is not supported") if pictured else said("A")

    with serving(blind) as server, pytest.raises(BadInput, match=r"no pictures.*image_url is not supported"):
        asker_at(server).ask(PICTURES, ASKS)
    with serving(lambda asked: refused(401, "who are you?")) as server, pytest.raises(BadInput, match=r"who are you\?.*OPENAI_API_KEY"):
        asker_at(server).ask(PICTURES, ASKS)
    assert len(server.asked) == 1  # a final no is not asked again


def faulty(bad: Reply, times: int) -> Callable[[Asked], Reply]:
    """The first `times` tries of every question go wrong."""
    tried: dict[tuple[str, bytes], int] = {}

    def reply(asked: Asked) -> Reply:
        if "colour" not in asked.question:
            return by_pixels(asked)
        key = (asked.prompt, asked.picture.tobytes())
        tried[key] = tried.get(key, 0) + 1
        return bad if tried[key] <= times else by_pixels(asked)

    return reply


FAULTS = {
    "dropped": Reply(drop=True),
    "stalled": Reply(stall=True),
    "dripping": Reply(b" " * 4000 + b"{}", drip=True),
    "no JSON": Reply(b"<html>sorry</html>"),
    "half of JSON": Reply(b'{"choices": [{"mess'),
    "JSON without choices": Reply({"object": "chat.completion", "choices": []}),
    "too many requests": Reply({"error": {"message": "slow down"}}, 429, {"Retry-After": "0.01"}),
    "a fault of its own": Reply(b"oops", 500, {"Content-Type": "text/plain"}),
    "no answer in time": Reply({"detail": "upstream"}, 504),
}


@pytest.mark.parametrize("name", FAULTS)
def test_trouble_that_passes_changes_no_answer(name: str) -> None:
    asks = ASKS[:4]
    with serving(by_pixels) as server:
        whole = asker_at(server).ask(PICTURES, asks)
    timeout = {"timeout_s": 0.3} if name in ("stalled", "dripping") else {}
    with serving(faulty(FAULTS[name], 2)) as server:
        found = asker_at(server, **timeout).ask(PICTURES, asks)
        assert questions(server) == 3 * len(asks)
    assert [answer.chosen for answer in found] == [answer.chosen for answer in whole]


def test_trouble_that_stays_ends_the_run_keeps_what_was_answered_and_goes_on_from_there(tmp_path: Path) -> None:
    broken = {"still": True}

    def reply(asked: Asked) -> Reply:
        bad = broken["still"] and "what colour" in asked.question and asked.picture.tobytes() == PICTURES[5].tobytes()
        return refused(503, "out of order") if bad else by_pixels(asked)

    cache = ResponseCache(tmp_path / "c.sqlite")
    with serving(reply) as server:
        with pytest.raises(BadInput, match=r"failed 4 times .*out of order.*running the command again goes on"):
            asker_at(server, cache, concurrency=1).ask(PICTURES, ASKS)
        assert num_responses(tmp_path / "c.sqlite") == len(ASKS)  # all but one, and what the server offers
        broken["still"] = False
        before = questions(server)
        answers = asker_at(server, ResponseCache(tmp_path / "c.sqlite")).ask(PICTURES, ASKS)
        assert questions(server) == before + 1 and all(count == 1 for (prompt, _), count in server.answered.items() if "colour" in prompt)
    assert all(answer.chosen is not None for answer in answers)


def test_a_final_refusal_in_the_middle_says_what_the_server_said() -> None:
    def reply(asked: Asked) -> Reply:
        return refused(404, "the model has left") if "colour" in asked.question else by_pixels(asked)

    with serving(reply) as server, pytest.raises(BadInput, match="HTTP 404: the model has left"):
        asker_at(server).ask(PICTURES, ASKS)
    assert questions(server) <= 3  # those that were on their way


def test_requests_a_minute_are_spaced(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"now": 100.0}
    monkeypatch.setattr("theodolite.asking.endpoint.channel.monotonic", lambda: clock["now"])
    with serving(by_pixels) as server:
        channel = Channel(EndpointSettings(server.url, "m", per_minute=30.0, **QUICK))  # type: ignore[arg-type]
        waits: list[float] = []
        monkeypatch.setattr(channel, "_pause", lambda seconds: waits.append(seconds))
        for _ in range(3):
            channel._await_turn()
        clock["now"] += 60
        channel._await_turn()
    assert waits == [0.0, 2.0, 4.0, 0.0]


def test_the_cache_keeps_the_first_answer_and_two_processes_can_share_it(tmp_path: Path) -> None:
    one, other = ResponseCache(tmp_path / "a" / "c.sqlite"), ResponseCache(tmp_path / "a" / "c.sqlite")
    assert one.put("k", {"text": "A"}) == {"text": "A"}
    assert other.put("k", {"text": "B"}) == {"text": "A"}
    threads = [
        threading.Thread(target=lambda each=each, start=start: [each.put(str(start + at), at) for at in range(40)])
        for start, each in ((0, one), (20, other))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert num_responses(tmp_path / "a" / "c.sqlite") == 61 and len(other.find([str(at) for at in range(1000)])) == 60
    (tmp_path / "text").write_text("this is no data base" * 100)
    with pytest.raises(BadInput, match="--cache"):
        ResponseCache(tmp_path / "text")


def test_the_key_of_an_answer_is_over_everything_that_is_sent() -> None:
    base: dict[str, object] = {}
    with serving(by_pixels) as server:
        cache = ResponseCache(None)
        asker_at(server, cache).ask(PICTURES, ASKS[:1])
        for changes, asks, more in (
            ({}, ASKS[:1], 0),
            ({"max_tokens": 5}, ASKS[:1], 1),
            ({"seed": 1}, ASKS[:1], 1),
            ({"prompt": "options"}, ASKS[:1], 1),
            ({"prompt": "free"}, ASKS[:1], 1),
            ({"concurrency": 1, "timeout_s": 3.0}, ASKS[:1], 0),
            ({}, [Question(1, ASKS[0].question, COLOURS)], 1),
            ({}, [Question(0, ASKS[0].question, COLOURS[::-1])], 1),
        ):
            before = questions(server)
            asker_at(server, cache, **{**base, **changes}).ask(PICTURES, asks)
            assert questions(server) - before == more, changes
        before = questions(server)
        asker_at(server, cache).ask(PICTURES[[0, 0]], [Question(1, ASKS[0].question, COLOURS)])  # the same pixels at another place
        assert questions(server) == before
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})


def test_an_estimate_counts_what_the_cache_lacks() -> None:
    told: list[CostEstimate] = []
    with serving(by_pixels) as server:
        cache = ResponseCache(None)
        asker_at(server, cache).ask(PICTURES, ASKS[:5])
        asker = asker_at(server, cache)
        asker.announce = told.append
        asker.ask(PICTURES, ASKS)
    (found,) = told
    left = len(ASKS) - 5
    assert (found.num_questions, found.num_requests, found.tokens_out) == (len(ASKS), left, 32 * left)
    prompts = [write_prompt("letters", ask.question, ask.choices).text for ask in ASKS[5:]]
    assert found.tokens_in == sum(picture_tokens(32, 32) + text_tokens(prompt) for prompt in prompts)
    assert picture_tokens(512, 512) == 255 and picture_tokens(513, 512) == 425
    assert "about 1.50 USD" in CostEstimate(1, 1, 500_000, 250_000).words(1.0, 4.0) and "USD" not in found.words()


CONFIG = EndpointConfig(
    base_url="http://localhost/v1",
    name="m",
    served_as=(),
    offers=Capabilities(logprobs=0, seed=True, temperature=True, limit_name="max_tokens"),
    answers="text",
    prompt_sha256="0" * 64,
    picture_size=32,
    max_tokens=32,
    seed=0,
)


class Writer:
    """An asker whose model writes what a function says."""

    def __init__(self, says: Callable[[Question, int], str]) -> None:
        self.says = says

    def ask(self, pictures: np.ndarray, asks: Sequence[Question], progress: Progress = silent) -> list[Answer]:
        return [answer_of_text(self.says(ask, int(pictures[ask.picture].astype(np.int64).sum())), ask.choices) for ask in asks]


def surveyed(says: Callable[[Question, int], str]) -> tuple[SurveyRecord, pl.DataFrame]:
    """A survey of shape and row on 6 scenes of whoever writes what a function says to a question and the sum of a picture's pixels."""
    found = survey_model(SurveyedModel(Writer(says), 32, lambda: CONFIG), WORLD, policy="shape,row", title="m", num_scenes=6)
    return found.record, found.rows


def letter(ask: Question, pixels: int) -> str:
    return "ABCD"[(pixels + len(ask.question)) % len(ask.choices)]


@pytest.fixture(scope="module")
def partly() -> tuple[SurveyRecord, pl.DataFrame]:
    """A model that says nothing to one question about shape in three."""
    return surveyed(lambda ask, pixels: "hm" if "round" in ask.choices and pixels % 3 == 0 else letter(ask, pixels))


def test_what_was_not_answered_is_null_counted_and_never_wrong(partly: tuple[SurveyRecord, pl.DataFrame]) -> None:
    record, rows = partly
    missing = rows.filter(pl.col("answer_before").is_null() | pl.col("answer_after").is_null())
    assert 0 < len(missing) < len(rows)
    for name in ("moved", "right", "variation"):
        assert missing[name].null_count() == len(missing) and rows.filter(pl.col("moved").is_not_null())[name].null_count() == 0
    assert rows.filter(pl.col("answer_before").is_null())["probabilities_before"].null_count() == rows["answer_before"].null_count()
    (gap,) = record.shadows.unanswered
    sides = pl.concat(
        [
            rows.select("query", answer=f"answer_{side}", q=f"question_{side}", p=f"picture_{side}", c="choices")
            for side in ("before", "after")
        ]
    )
    asked = sides.filter(query="shape").unique()
    assert gap.query == "shape" and (gap.num_questions, gap.num_unanswered) == (len(asked), asked["answer"].null_count())
    for cell in record.shadows.cells:
        part = rows.filter((pl.col("kind") == "intervention") & (pl.col("factor") == cell.factor) & (pl.col("query") == cell.query))
        part = part.filter(((pl.col("truth_before") != pl.col("truth_after")) == cell.truth_moves) & pl.col("moved").is_not_null())
        assert cell.num_pairs == len(part) and cell.moved_frac == pytest.approx(part["moved"].mean())
        assert cell.right_frac == pytest.approx(part["right"].mean())
    for found in record.shadows.competence:
        own = rows.filter(pl.col("query") == found.query)
        one, other = (
            own.filter(pl.col("kind").is_in(kinds)).select("scene", "name", answer=f"answer_{side}", picture=f"picture_{side}")
            for kinds in [["training"] if found.scenes == "training" else ["intervention", "nuisance"]]
            for side in ("before", "after")
        )
        singles = one if found.scenes == "training" else pl.concat([one, other]).unique()
        assert found.rate.num_pairs == len(singles.drop_nulls("answer"))
    assert record.shadows.outside_mass is None
    assert SurveyRecord.model_validate_json(record.to_json()) == record


def test_a_survey_without_one_answer_measures_nothing() -> None:
    record, rows = surveyed(lambda ask, pixels: "hm")
    assert rows["moved"].null_count() == len(rows) and record.shadows.cells == () and record.shadows.noise_cells == ()
    assert set(record.shadows.verdicts.values()) == {"not_measured"}
    assert all(gap.frac == 1.0 for gap in record.shadows.unanswered)


def test_a_leak_that_nobody_answered_about_is_not_taken_for_none() -> None:
    """All questions about row go unanswered: a model that reads shape may still leak into row."""
    record, _ = surveyed(lambda ask, pixels: "hm" if "top" in ask.choices else ask.choices[pixels % 4])
    assert {gap.query: gap.frac for gap in record.shadows.unanswered} == {"row": 1.0}
    assert not {"identified", "inert", "blind"} & set(record.shadows.verdicts.values())
    assert all(leak.query != "row" for leak in record.shadows.leaks)
    assert "leak, which needs answers to row (open)" in record.shadows.evidence["shape"].missing


def test_surveys_with_missing_answers_are_compared_where_both_answered(partly: tuple[SurveyRecord, pl.DataFrame]) -> None:
    whole, rows = surveyed(letter)
    found = compare_records(whole, rows, *partly)
    answered = partly[1].filter((pl.col("kind") == "intervention") & pl.col("moved").is_not_null())
    assert found.num_rows == len(answered) and found.one.num_rows_alone > 0 and found.other.num_rows_alone == 0
    assert all(cell.moved.difference.value == 0 for cell in found.cells) and found.one.weights_sha256 is None


def test_measures_of_an_inside_are_refused_before_anything_is_asked() -> None:
    with serving(by_pixels) as server, pytest.raises(BadInput, match="look inside the model"):
        asker = asker_at(server)
        survey_model(SurveyedModel(asker, 32, asker.describe), WORLD, policy="shape", title="m", num_scenes=2, measures=("ladder",))
    assert server.asked == []


def test_a_null_in_one_side_is_not_a_wrong_pair() -> None:
    seen: dict[int, int] = {}
    half = Writer(lambda ask, pixels: "hm" if seen.setdefault(ask.picture, len(seen)) % 2 else "A")
    rows = answer_plan(plan_world(WORLD, WORLD.policy("shape"), 3, 0, 32), half)
    both = pl.col("answer_before").is_not_null() & pl.col("answer_after").is_not_null()
    assert rows.filter(~both)["right"].null_count() == len(rows.filter(~both)) > 0
    assert rows.filter(both)["right"].null_count() == 0


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x/v1", "http:///v1", "http://x/v1?api-key=secret"])
def test_an_address_that_is_none_or_holds_a_query_is_refused(url: str) -> None:
    with pytest.raises(BadInput) as refusal:
        EndpointSettings(url, "m")
    assert "secret" not in str(refusal.value)
