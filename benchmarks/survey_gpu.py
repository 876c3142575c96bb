"""Whether a survey of photographs fills a GPU: pairs a second, share of the time in which the device works, time over its floor in FLOPs.

    python benchmarks/survey_gpu.py --json                      # LLaVA shapes of 1.5B and 7B with random weights, on a GPU
    python benchmarks/survey_gpu.py --models tiny --json        # a tiny model, on a CPU in seconds
    python benchmarks/survey_gpu.py --models host --json        # on a CPU: the host's time alone, the device's work replaced by nothing

The pairs are JPEG files (`--size`), read, decoded and resized to 378 x 378 as in any survey; each picture has four questions in one row.
What is timed is the survey's step "questions".
The device works while one of its kernels runs, by CUPTI's record of a second survey of the same pairs. The floor is the FLOPs of all matrix
products at the rate of a product of 8,192 x 8,192 in bf16, measured in the same run: no memory traffic, no elementwise work.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from transformers import LlavaProcessor, SiglipImageProcessorPil

sys.path.insert(0, str(Path(__file__).parent))
from laver_arms import GIB, Shape, Tower, build, resident

from theodolite.asking import local
from theodolite.asking.answer import Question
from theodolite.asking.rows import Batch, TokenRow
from theodolite.asking.scored import Scored
from theodolite.measurement.survey.options import SurveyOptions
from theodolite.measurement.survey.session import SurveySession
from theodolite.measurement.survey.surveyed import SurveyedModel
from theodolite.measurement.survey.targets import target_of
from theodolite.models.construction.build import CHAT_TEMPLATE, word_tokenizer
from theodolite.models.device import Placement
from theodolite.models.vision_features import VisionFeatures
from theodolite.records.progress import Progress, ProgressSteps, silent

# Choices of each question; the questions of a pair.
QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "what colour is the thing in front": ("red", "blue", "green", "grey"),
    "what is it made of": ("wood", "metal", "glass", "cloth"),
    "where does it stand": ("left", "right", "middle"),
    "is there a person": ("yes", "no"),
}
NUM_JPEGS = 8
SO400M = Tower(num_layers=27, width=1152, num_heads=16, feed_forward=4304, patch=14)
B1_5 = Shape(28, 1536, 12, 2, 8960, 151936, SO400M, side=27, pictures=1, text=1, rows=1, head_hidden=1)
SHAPES = {
    "1.5b": B1_5,
    "7b": Shape(28, 3584, 28, 4, 18944, 152064, SO400M, side=27, pictures=1, text=1, rows=1, head_hidden=1),
    "tiny": Shape(2, 64, 4, 2, 128, 512, Tower(1, 16, 2, 32, 14), side=9, pictures=1, text=1, rows=1, head_hidden=1),
    # The sizes that the host sees are those of 1.5b.
    "host": Shape(1, 16, 2, 2, 32, 512, Tower(1, 16, 2, 32, 14), side=27, pictures=1, text=1, rows=1, head_hidden=1),
}
BUSY_AIM, FLOOR_AIM, HOST_AIM_MS = 0.8, 1.5, 3.0
PRODUCT = {"cuda": 8192, "cpu": 1024}


@dataclass(eq=False)
class Timer:
    """`ProgressSteps` that time the step "questions" within `context`, entered each time."""

    device: torch.device
    context: Any = None
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @contextmanager
    def step(self, name: str, cost: str) -> Iterator[Progress]:
        with ExitStack() as stack:
            if self.context is not None:
                stack.enter_context(self.context)
            synchronize(self.device)
            wall, cpu = time.perf_counter(), time.process_time()
            yield silent
            synchronize(self.device)
            self.seconds, self.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def manifest(folder: Path, num_pairs: int, size: tuple[int, int]) -> Path:
    """A manifest of so many pairs of JPEG files of a (width, height), hard links to a few; every pair has the same questions."""
    rng, sources = np.random.default_rng(0), []
    folder.mkdir(parents=True)
    for number in range(NUM_JPEGS):
        ramp = np.linspace(0, 160, size[0])[None, :, None] + np.linspace(0, 40, size[1])[:, None, None]
        pixels = ramp + rng.integers(0, 40, (1, 1, 3)) + rng.integers(0, 16, (size[1], size[0], 1))
        sources.append(folder / f"source-{number}.jpg")
        Image.fromarray(pixels.astype(np.uint8)).save(sources[-1], quality=90)
    lines = []
    for pair in range(num_pairs):
        names = [f"{pair:06d}-{side}.jpg" for side in range(2)]
        for side, name in enumerate(names):
            os.link(sources[(2 * pair + side) % NUM_JPEGS], folder / name)
        for number, (question, choices) in enumerate(QUESTIONS.items()):
            lines.append(
                {"scene": pair, "factor": f"factor {number}", "from": choices[0], "to": choices[1], "picture": names[0], "edited": names[1],
                 "question": question, "choices": list(choices), "answer_before": choices[0], "answer_after": choices[1],
                 "query": f"query {number}", "kind": "matched"}
            )  # fmt: skip
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def vlm(shape: Shape, placement: Placement) -> tuple[Any, Any]:
    """A LLaVA of this shape with random weights, and its processor."""
    tokenizer = word_tokenizer([*QUESTIONS, *(choice for choices in QUESTIONS.values() for choice in choices)])
    model = build(shape, placement.device, getattr(torch, placement.dtype), "sdpa").eval()
    model.config.image_token_id = tokenizer.convert_tokens_to_ids("<image>")
    text = model.config.get_text_config()
    text.pad_token_id, text.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    side = shape.side * shape.tower.patch
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": side, "width": side}, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer,
        patch_size=shape.tower.patch,
        vision_feature_select_strategy="full",
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def rows_of_a_picture(asker: local.LocalAsker) -> list[TokenRow]:
    """The token rows of the questions about one picture."""
    grid = asker.model_inputs(np.zeros((1, 384, 480, 3), dtype=np.uint8))
    assert grid.num_tokens > 0
    questions = [Question(0, question, choices) for question, choices in QUESTIONS.items()]
    return [row for part in asker.groups(np.zeros((1, 384, 480, 3), dtype=np.uint8), questions) for row in part]


def flops(shape: Shape, rows: Sequence[TokenRow]) -> float:
    """FLOPs of the matrix products of one picture and its rows: encoder, connector, decoder, logits where they are wanted."""
    cells, width, tower = shape.side**2, shape.width, shape.tower
    encoder = tower.num_layers * (2 * cells * (4 * tower.width**2 + 2 * tower.width * tower.feed_forward) + 4 * cells**2 * tower.width)
    connector = 2 * cells * (tower.width * width + width**2)
    projections = 2 * width**2 * (1 + shape.num_key_value_heads / shape.num_heads)
    linear = 2 * shape.num_layers * (projections + 3 * width * shape.feed_forward)
    decoder = 0.0
    for row in rows:
        tokens = len(row.tokens)
        pairs = row.behind * (row.behind + 1) / 2 + (tokens - row.behind) * row.behind  # what branches see of themselves is left out
        wanted = len({column for _, _, column, _ in row.steps})
        decoder += tokens * linear + pairs * 4 * shape.num_layers * width + wanted * 2 * width * shape.vocabulary
    return encoder + connector + decoder


def product_rate(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of one large matrix product."""
    size = PRODUCT[device.type]
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(13):
        synchronize(device)
        before = time.perf_counter()
        left @ right
        synchronize(device)
        seconds.append(time.perf_counter() - before)
    return 2 * size**3 / statistics.median(seconds[3:])


def busy_share(profiler: Any, seconds: float) -> dict[str, float]:
    """Share of the seconds in which a kernel ran, and in which anything did (copies too), from the profiler's record."""
    spans: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
    for event in profiler.profiler.kineto_results.events():
        if event.device_type() == torch.autograd.DeviceType.CUDA and event.duration_ns() > 0:
            is_copy = event.name().startswith(("Memcpy", "Memset"))
            spans[is_copy].append((event.start_ns(), event.start_ns() + event.duration_ns()))
    return {"busy_frac": _union(spans[False]) / 1e9 / seconds, "busy_or_copying_frac": _union(spans[False] + spans[True]) / 1e9 / seconds}


def _union(spans: list[tuple[int, int]]) -> int:
    covered, end = 0, 0
    for first, last in sorted(spans):
        covered += max(last - max(first, end), 0)
        end = max(end, last)
    return covered


@contextmanager
def nothing_on_the_device(asker: local.LocalAsker) -> Iterator[None]:
    """Context in which encoder and language model are not run: scores are zeros."""
    width = asker.base.config.get_text_config().hidden_size

    def encode(model: Any, pixels: Mapping[str, torch.Tensor], num_pictures: int, *, patches: bool = False) -> VisionFeatures:
        return VisionFeatures(torch.zeros(num_pictures, 1, width))

    def score(self: local.LocalAsker, batch: Batch, features: VisionFeatures, edits: Any = None) -> Scored:
        zeros = torch.zeros(len(batch.question_of_choice))
        return Scored(zeros, zeros, torch.zeros(len(batch.questions), width))

    with patch.object(local, "encode_pictures", encode), patch.object(local.LocalAsker, "score", score):
        yield


def survey(surveyed: SurveyedModel, path: Path, steps: ProgressSteps, batch: int | None) -> None:
    """Asks all questions of the pairs."""
    options = SurveyOptions(noise="given", batch=batch)
    SurveySession.ask(surveyed, target_of(path, options, None), options, steps, {})


def measure(name: str, given: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """The figures of one model."""
    placement = Placement.of(given.device if name not in ("tiny", "host") else given.device or "cpu")
    device = torch.device(placement.device)
    shape = SHAPES[name]
    surveyed = SurveyedModel.of_model(*vlm(shape, placement), batch=given.batch, workers=given.workers)
    asker = surveyed.local
    assert asker is not None
    rows = rows_of_a_picture(asker)
    timer = Timer(device)
    with nothing_on_the_device(asker) if name == "host" else ExitStack():
        survey(surveyed, manifest(scratch / "warmup", max(given.pairs // 8, 2), given.size), timer.step, given.batch)
        path = manifest(scratch / "pairs", given.pairs, given.size)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        survey(surveyed, path, timer.step, given.batch)
    pictures = 2 * given.pairs
    record: dict[str, Any] = {
        "model": name,
        "pairs": given.pairs,
        "picture_size": list(given.size),
        "pairs_per_s": given.pairs / timer.seconds,
        "seconds": timer.seconds,
        "ms_per_picture": 1e3 * timer.seconds / pictures,
        "cpu_ms_per_picture": 1e3 * timer.cpu_seconds / pictures,
        "vision_tokens": shape.vision,
        "tokens_of_rows": [len(row.tokens) for row in rows],
        "rows_at_once": asker.batch_sizer.largest,
        "notices": list(surveyed.notices),
    }
    if name == "host":
        return {**record, "aim_ms_per_picture": HOST_AIM_MS, "aim_met": record["ms_per_picture"] < HOST_AIM_MS}
    counted, rate = flops(shape, rows), product_rate(device, asker.base.dtype)
    floor = pictures * counted / rate
    record |= {
        "tflops_per_picture": counted / 1e12,
        "product_tflops_per_s": rate / 1e12,
        "floor_s": floor,
        "over_floor": timer.seconds / floor,
    }
    if device.type == "cuda":
        record["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        profiled = Timer(device, torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]))
        survey(surveyed, path, profiled.step, given.batch)
        record |= busy_share(profiled.context, profiled.seconds)
        record |= {"busy_aim_met": record["busy_frac"] >= BUSY_AIM, "floor_aim_met": record["over_floor"] <= FLOOR_AIM}
    else:
        record["peak_gib"] = resident("VmHWM") / GIB
    return record


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what the figures were taken."""
    import transformers

    card = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        card = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / GIB:.1f} GiB, {os.cpu_count()} cores"
    return {"device": card, "torch": torch.__version__, "cuda": torch.version.cuda, "transformers": transformers.__version__}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=["1.5b", "7b"])
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 384), metavar=("WIDTH", "HEIGHT"), help="of the JPEG files, in pixels")
    parser.add_argument("--batch", type=int, help="rows at once; default as a survey chooses")
    parser.add_argument("--workers", type=int, help="threads that read pictures; default as a survey chooses")
    parser.add_argument("--device", help="default: cuda; for tiny and host cpu")
    given = parser.parse_args()
    if not torch.cuda.is_available() and given.device is None and set(given.models) - {"tiny", "host"}:
        sys.exit("survey_gpu: no CUDA device; run it on a GPU, or give --models tiny or host")
    models = []
    for name in given.models:
        with tempfile.TemporaryDirectory() as scratch:
            models.append(measure(name, given, Path(scratch)))
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    record = {**machine(torch.device(Placement.of(given.device).device)), "models": models}
    if given.json:
        print(json.dumps(record, indent=1))
        return
    print(record["device"])
    for model in models:
        busy = f", device busy {model['busy_frac']:.2f}" if "busy_frac" in model else ""
        over = f", {model['over_floor']:.2f} of the floor" if "over_floor" in model else ""
        print(f"{model['model']}: {model['pairs_per_s']:.1f} pairs a second, {model['ms_per_picture']:.2f} ms a picture{busy}{over}")


if __name__ == "__main__":
    main()
