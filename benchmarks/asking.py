"""Pictures a second of asking 8 questions about each, with the picture run once for all of them, and once for each of them.

Both in one run, on one model, vision features computed once beforehand, logits at answer positions only, each at its best batch size. The
floor is the number of tokens that each runs. `plain` is one causal forward pass a (picture, question) without any mask of ours: it feeds
as many tokens as `apart` and needs no branch for choices, so that the baseline is not slowed by how we score.

    python benchmarks/asking.py --json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
)

from theodolite.asking.answer import Question, answer_from_scores
from theodolite.asking.local import LocalAsker
from theodolite.asking.rows import Batch, TokenRow
from theodolite.models.construction.build import CHAT_TEMPLATE, word_tokenizer
from theodolite.models.vision_features import VisionFeatures

NUM_QUERIES, VISION, TEXT = 8, 256, 24
CHOICES = ("yes", "no")
# <answer> and one word a choice are fed beside the question's own words.
WORDS = [f"word{number}" for number in range(TEXT - 1 - len(CHOICES))]


def small_vlm(width: int, layers: int, dtype: torch.dtype) -> tuple[Any, Any]:
    """A LLaVA with random weights whose pictures have 256 tokens; its blocks are those of a Llama with grouped keys and values."""
    tokenizer = word_tokenizer([" ".join(WORDS), *CHOICES, *(f"q{number}" for number in range(NUM_QUERIES))])
    vision = SiglipVisionConfig(
        image_size=64,
        patch_size=4,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        vision_use_head=False,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=width * 8 // 3,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 192,
        max_position_embeddings=1024,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    image = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=image, image_seq_length=VISION,
        vision_feature_select_strategy="full", vision_feature_layer=-1,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(config).to(dtype).eval()
    processor = LlavaProcessor(
        SiglipImageProcessorPil(size={"height": 64, "width": 64}, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        tokenizer,
        patch_size=4,
        vision_feature_select_strategy="full",
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def parts(rows: Sequence[TokenRow], batch: int) -> list[list[TokenRow]]:
    return [list(rows[start : start + batch]) for start in range(0, len(rows), batch)]


def prepared(
    asker: LocalAsker, pictures: np.ndarray, rows: Sequence[TokenRow], batch: int, vision_features: VisionFeatures
) -> list[tuple[Batch, VisionFeatures]]:
    """Batches with the vision tokens of their rows, seen beforehand."""
    batches = [asker.collate(part, pictures) for part in parts(rows, batch)]
    return [(each, vision_features.take(each.pictures)) for each in batches]


def plain_rows(rows: Sequence[TokenRow]) -> list[TokenRow]:
    """The same tokens without branches, one logit a row: what a causal forward pass is at its least."""
    return [
        TokenRow(row.picture, row.tokens, [0] * len(row.tokens), [0] * len(row.tokens), row.behind, row.steps[:1], row.ends) for row in rows
    ]


@torch.inference_mode()
def seconds(asker: LocalAsker, work: Sequence[tuple[Batch, VisionFeatures]]) -> float:
    before = time.perf_counter()
    for batch, vision_features in work:
        asker.score(batch, vision_features)
    return time.perf_counter() - before


@torch.inference_mode()
def probabilities(asker: LocalAsker, work: Sequence[tuple[Batch, VisionFeatures]]) -> dict[int, np.ndarray]:
    found = {}
    for batch, vision_features in work:
        scores, owner = asker.score(batch, vision_features).choices.double().numpy(), batch.question_of_choice.numpy()
        found |= {number: answer_from_scores(scores[owner == position]).probabilities for position, number in enumerate(batch.questions)}
    return found


def measure(options: argparse.Namespace) -> dict[str, Any]:
    model, processor = small_vlm(options.width, options.layers, getattr(torch, options.dtype))
    pictures = np.random.default_rng(0).integers(0, 256, (options.pictures, 64, 64, 3), dtype=np.uint8)
    questions = [
        Question(number, " ".join([*WORDS[1:], f"q{query}"]), CHOICES) for number in range(len(pictures)) for query in range(NUM_QUERIES)
    ]
    askers = {name: LocalAsker(model, processor, 1, share=name == "shared") for name in ("shared", "apart")}
    rows = {name: [row for part in asker.groups(pictures, questions) for row in part] for name, asker in askers.items()}
    askers["plain"], rows["plain"] = askers["apart"], plain_rows(rows["apart"])
    with torch.inference_mode():
        vision_features = askers["shared"].encode_pictures(pictures)
    tokens = {name: sum(len(row.tokens) for row in each) for name, each in rows.items()}

    def ready(name: str, batch: int) -> list[tuple[Batch, VisionFeatures]]:
        return prepared(askers[name], pictures, rows[name], batch, vision_features)

    shared, apart = (probabilities(askers[name], ready(name, 1)) for name in ("shared", "apart"))
    gap = max(float(np.abs(shared[number] - apart[number]).max()) for number in shared)
    sizes = {"shared": options.shared, "apart": options.apart, "plain": options.apart}
    best = {}
    for name in rows:
        tried = {batch: min(seconds(askers[name], ready(name, batch)) for _ in range(2)) for batch in sizes[name]}
        best[name] = min(tried, key=lambda batch: tried[batch])
    work = {name: ready(name, best[name]) for name in rows}
    taken: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(options.repeats):  # in turns, so that a noisy minute falls on all
        for name in rows:
            taken[name].append(seconds(askers[name], work[name]))
    median = {name: statistics.median(values) for name, values in taken.items()}
    floor = min(tokens["apart"], tokens["plain"]) / tokens["shared"]
    speedup = min(median["apart"], median["plain"]) / median["shared"]
    by_turn = [min(apart, plain) / own for own, apart, plain in zip(taken["shared"], taken["apart"], taken["plain"], strict=True)]
    return {
        "speedup": round(speedup, 3),
        "speedup_low": round(min(by_turn), 3),
        "speedup_high": round(max(by_turn), 3),
        "over_floor": round(floor / speedup, 3),
        "floor": round(floor, 3),
        "max_probability_gap": gap,
        "pictures_per_s": {name: round(len(pictures) / value, 3) for name, value in median.items()},
        "best_batch": best,
        "tokens_a_picture": {name: count / len(pictures) for name, count in tokens.items()},
        "dtype": options.dtype,
        "model": {"width": options.width, "layers": options.layers},
        "repeats": options.repeats,
    }


def parser() -> argparse.ArgumentParser:
    """The options of `measure`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--width", type=int, default=576, help="of the language model (default: that of SmolLM2-135M)")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--shared", type=int, nargs="+", default=(1, 2, 4, 8), help="batch sizes to try, in rows")
    parser.add_argument("--apart", type=int, nargs="+", default=(1, 2, 4, 8, 16), help="batch sizes to try, in rows")
    return parser


def main() -> None:
    options = parser().parse_args()
    found = measure(options)
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['speedup']} times the pictures a second ({found['pictures_per_s']}), floor by tokens {found['floor']}")


if __name__ == "__main__":
    main()
