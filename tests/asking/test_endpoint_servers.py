"""Endpoints as they are met: a real `transformers serve`, a server over a real model, and a survey that is killed and goes on."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from helpers.command_line import warm_theodolite
from helpers.endpoint_server import Asked, Reply, by_pixels, of_asker, said, serving
from helpers.requirements import require
from helpers.tiny_llava import TINY, WORLD, tiny_vlm
from theodolite.asking.answer import Question
from theodolite.asking.endpoint import reading
from theodolite.asking.endpoint.asker import EndpointAsker
from theodolite.asking.endpoint.cache import ResponseCache
from theodolite.asking.endpoint.channel import EndpointSettings
from theodolite.asking.local import LocalAsker
from theodolite.asking.prompts import LETTERS, write_prompt
from theodolite.cli import app
from theodolite.measurement.survey.session import survey_model
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.models.construction.build import build_vlm
from theodolite.models.export import export_vlm
from theodolite.records.survey import read_survey

PATIENCE_S = 300  # for a process to come up on a busy machine; nothing waits that long where it does
KEY = "sk-loopback-3141592653589793"


def test_a_server_that_tells_letters_probabilities_gives_the_survey_of_the_model_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LEAST_MASS", 0.0)  # an untrained model gives letters less
    model, processor = tiny_vlm(3)
    policy = WORLD.policy("shape,row")
    own = survey_model((model, processor), WORLD, policy=policy, title="m", num_scenes=3)
    with serving(of_asker(LocalAsker(model, processor))) as server:
        # By name: with most of its probability outside the letters, an untrained model would else be read as text.
        settings = EndpointSettings(server.url, "m", picture_size=64, concurrency=2, prompt="letters", answers="logprobs")
        asker = EndpointAsker(settings, ResponseCache(None))
        found = survey_model(SurveyedModel(asker, 64, asker.describe), WORLD, policy=policy, title="m", num_scenes=3)
    assert asker.describe().answers == "logprobs" and asker.describe().offers.logprobs == 20
    numbers = [f"{name}_{side}" for name in ("probabilities", "outside", "total_logprob", "num_tokens") for side in ("before", "after")]
    assert found.rows.drop(*numbers, "variation").equals(own.rows.drop(*numbers, "variation"))
    assert found.rows["total_logprob_before"].null_count() == found.rows["num_tokens_after"].null_count() == len(found.rows)
    for side in ("before", "after"):
        pairs = zip(found.rows[f"probabilities_{side}"], own.rows[f"probabilities_{side}"], strict=True)
        assert max(float((one - other).abs().max()) for one, other in pairs) < 1e-5
        assert float((found.rows[f"outside_{side}"] - own.rows[f"outside_{side}"]).abs().max()) < 1e-4
    assert found.record.pictures_sha256 == own.record.pictures_sha256 and found.record.shadows.verdicts == own.record.shadows.verdicts


@contextmanager
def transformers_serve(folder: Path, log: Path) -> Iterator[str]:
    """The library's own server of a model's folder, on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as said_there, subprocess.Popen([*command, "--device", "cpu"], stdout=said_there, stderr=said_there) as process:
        try:
            until = time.monotonic() + PATIENCE_S
            while not _is_up(f"http://127.0.0.1:{port}/health"):
                assert process.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def test_transformers_serve_is_asked_by_text(tmp_path: Path) -> None:
    """A tiny LLaVA that can say nothing but a letter, then ends: what it says through the server is what it says here."""
    require("fastapi", "uvicorn", "opentelemetry")
    letters = LETTERS[:6]
    model, processor = build_vlm([*WORLD.texts, " ".join(letters)], 0, decoder=TINY, frontend="patches")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for weight in model.model.language_model.parameters():
            weight.data += 0.3 * torch.randn_like(weight)
    ids = processor.tokenizer.convert_tokens_to_ids([letter.lower() for letter in letters])  # as the tokenizer has them
    assert len(set(ids)) == len(letters)
    model.generation_config.suppress_tokens = [token for token in range(len(processor.tokenizer)) if token not in ids]
    model.generation_config.eos_token_id = ids
    export_vlm(model, processor, tmp_path / "model")
    pictures = WORLD.render(WORLD.sample(6, np.random.default_rng(5)), 64)
    asks = [Question(picture, "what is its shape?", ("round", "square", "crossed", "triangular")) for picture in range(6)]
    with transformers_serve(tmp_path / "model", tmp_path / "log") as url:
        settings = EndpointSettings(url, str(tmp_path / "model"), picture_size=64, concurrency=2, prompt="letters")
        asker = EndpointAsker(settings, ResponseCache(None))
        answers = asker.ask(pictures, asks)
        config = asker.describe()
    assert config.answers == "text" and config.offers.logprobs == 0 and config.served_as
    said_here = []
    for ask in asks:
        content = [{"type": "image"}, {"type": "text", "text": write_prompt("letters", ask.question, ask.choices).text}]
        prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(images=[Image.fromarray(pictures[ask.picture])], text=[prompt], return_tensors="pt")
        with torch.inference_mode():
            said_here.append(int(model.eval()(**inputs).logits[0, -1, ids].argmax()))
    assert [answer.chosen for answer in answers] == [at if at < 4 else None for at in said_here]


PAIRS = ("--world", "shapes", "--prompt", "letters", "--ask", "shape,row", "--picture-size", "32")
BASE = (*PAIRS, "--scenes", "3", "--concurrency", "3", "--cache")


def test_a_survey_killed_in_the_middle_goes_on_asks_nothing_twice_and_gives_the_same_record(tmp_path: Path) -> None:
    """The server stops answering after 60 answers; when all of them are in the cache, the process is killed."""
    killed = threading.Event()

    def reply(asked: Asked) -> Reply:
        return Reply(stall=True) if not killed.is_set() and sum(server.answered.values()) >= 60 else by_pixels(asked)

    with serving(reply) as server:
        command = [sys.executable, "-m", "theodolite", "survey", "org/tiny", "--endpoint", server.url, "--out", str(tmp_path / "one")]
        with subprocess.Popen([*command, *BASE, str(tmp_path / "c.sqlite")], stdout=subprocess.DEVNULL) as process:
            until = time.monotonic() + PATIENCE_S
            while sum(server.answered.values()) < 60 or _kept(tmp_path / "c.sqlite") < _distinct(server):
                assert process.poll() is None and time.monotonic() < until
                time.sleep(0.02)
            os.kill(process.pid, signal.SIGKILL)
        killed.set()
        assert not (tmp_path / "one").exists()
        first = dict(server.answered)
        done = warm_theodolite("survey", "org/tiny", "--endpoint", server.url, "--out", tmp_path / "one", *BASE, tmp_path / "c.sqlite")
        assert done.returncode == 0, done.stderr
        asked = {key: count for key, count in server.answered.items() if "grey or red" not in key[0]}
        assert len(asked) > len(first) and set(asked.values()) == {1}
        server.answered.clear()
        done = warm_theodolite("survey", "org/tiny", "--endpoint", server.url, "--out", tmp_path / "two", *BASE, tmp_path / "other.sqlite")
        assert done.returncode == 0, done.stderr
        assert {key for key in server.answered if "grey or red" not in key[0]} == set(asked)
    one, two = ((tmp_path / name / "survey.json").read_bytes() for name in ("one", "two"))
    assert one == two
    assert pl.read_parquet(tmp_path / "one" / "rows.parquet").equals(pl.read_parquet(tmp_path / "two" / "rows.parquet"))


def _kept(path: Path) -> int:
    if not path.exists():
        return -1
    try:
        base = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)
        try:
            return int(base.execute("SELECT COUNT(*) FROM responses").fetchone()[0])
        finally:
            base.close()
    except sqlite3.OperationalError:  # the table is not there yet
        return -1


def _distinct(server: object) -> int:
    """Answers that the cache must come to hold: one for each question, and one for what the server offers."""
    return 1 + sum("grey or red" not in prompt for prompt, _ in server.answered)  # type: ignore[attr-defined]


def here(*arguments: str | Path) -> str:
    """The command line in this process: all that it prints, and what it refuses."""
    done = CliRunner().invoke(app, list(map(str, arguments)))
    return f"{done.output}{done.stderr}{done.exception}"


def test_the_key_reaches_the_server_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server writes the key into everything that it says, and refuses for good in the end."""
    monkeypatch.setenv("LOOPBACK_KEY", KEY)
    monkeypatch.setenv("OPENAI_LOG", "debug")
    secrets = (KEY, "pass-27182818", "user-27182818")

    def telling(asked: Asked) -> Reply:
        assert asked.headers["Authorization"] == f"Bearer {KEY}"
        if "logprobs" in asked.body or ("row" in asked.prompt and state["angry"]):
            # A form of request that it does not take, and a refusal for good.
            return Reply({"error": {"message": f"the key {KEY} is bad"}}, 400 if "logprobs" in asked.body else 403)
        at = int(asked.picture.astype(np.int64).sum()) % len(asked.choices)
        return said(f"{LETTERS[at]}. {KEY}" if at == 0 else LETTERS[at], model=f"tiny {KEY}")

    state = {"angry": True}
    common = (*PAIRS, "--scenes", "2", "--key-env", "LOOPBACK_KEY")
    with serving(telling) as server:
        angry = here("survey", "tiny", "--endpoint", server.url, "--out", tmp_path / "out", *common)
        state["angry"] = False
        whole = warm_theodolite("survey", "tiny", "--endpoint", server.url, "--out", tmp_path / "out", *common)
    assert "[hidden]" in angry and "is bad" in angry and whole.returncode == 0, (angry, whole)
    password = server.url.replace("http://", f"http://{secrets[2]}:{secrets[1]}@")
    gone = here("survey", "tiny", "--endpoint", password, "--out", tmp_path / "gone", "--timeout", "0.2", *common, "--dry-run")
    assert "requests after the cache" in gone
    settings = EndpointSettings(password, "tiny", key_env="LOOPBACK_KEY")
    texts = [angry, whole.stdout + whole.stderr, gone, repr(settings), settings.public_url]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"survey.json", "run.json", "rows.parquet", "out.responses.sqlite"}
    for secret in secrets:
        assert not [text for text in texts if secret in text]
        assert not [path for path in files if secret.encode() in path.read_bytes()]
    assert read_survey(tmp_path / "out").model.words.count("[hidden]") == 1
    missing = here("survey", "tiny", "--endpoint", server.url, "--out", tmp_path / "x", *common[:-1], "NO_SUCH_KEY")
    assert "NO_SUCH_KEY is not set" in missing


def test_a_dry_run_tells_the_cost_asks_nothing_and_writes_nothing(tmp_path: Path) -> None:
    base = ("--endpoint", "http://127.0.0.1:9/v1", "--world", "shapes", "--ask", "shape", "--scenes", "2", "--out", tmp_path / "out")
    told = here("survey", "tiny", *base, "--dry-run", "--price-in", "1000")
    assert "requests after the cache" in told and "USD" in told
    for extra, words in ((("--measures", "ladder"), "look inside"), (("--device", "cuda"), "--device"), (("--batch", "4"), "--batch")):
        assert words in here("survey", "tiny", *base, *extra)
    alone = here("survey", "tiny", "--world", "shapes", "--out", tmp_path / "out", "--per-minute", "3")
    assert "--per-minute" in alone and "--endpoint" in alone
    assert list(tmp_path.iterdir()) == []
