"""The formats in which a pair set leaves: a task of lmms-eval, a data set of Hugging Face, a table of VLMEvalKit."""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from theodolite.asking.prompts import LETTERS
from theodolite.commands.export.writing import TEMPLATES, PairSet, rendered, write_items, write_parquet
from theodolite.measurement.pairs.items import item_id
from theodolite.records.errors import BadInput

Format = Literal["lmms-eval", "datasets", "vlmevalkit"]
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"))
# Texts that pandas, with which VLMEvalKit reads its tables, takes for a missing value.
MISSING = {"#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
MISSING |= {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}


def write_lmms_eval(pairs: PairSet, folder: Path, out: Path) -> str:
    """A task's folder: TASK.yaml, utils.py and data.parquet. The YAML names the data by the absolute path that they will have in `out`."""
    data = out.resolve() / "data.parquet"
    write_items(pairs, folder / "data.parquet")
    (folder / "utils.py").write_text((TEMPLATES / "lmms_eval_utils.py.txt").read_text(encoding="utf-8"), encoding="utf-8")
    task = rendered("lmms_eval_task.yaml.txt", task=json.dumps(pairs.task), data=json.dumps(str(data), ensure_ascii=False))
    (folder / f"{pairs.task}.yaml").write_text(task, encoding="utf-8")
    return f"lmms-eval --model MODEL --tasks {pairs.task} --include_path {out} --log_samples --output_path LOGS"


def write_datasets(pairs: PairSet, folder: Path, out: Path) -> str:
    """A data set's folder: items and pairs as Parquet, and the card."""
    write_items(pairs, folder / "items" / "test-00000-of-00001.parquet")
    write_parquet(folder / "pairs" / "test-00000-of-00001.parquet", PAIRS_SCHEMA, _pair_rows(pairs))
    gallery, rows = pairs.gallery, pairs.plan.rows
    card = rendered(
        "card.md.txt",
        name=json.dumps(gallery.name, ensure_ascii=False),
        title=gallery.name,
        size=next((name for most, name in SIZES if len(pairs.items) < most), "100K<n<1M"),
        num_pairs=f"{len(rows):,}",
        num_scenes=f"{rows['scene'].n_unique():,}",
        num_items=f"{len(pairs.items):,}",
        num_pictures=f"{pairs.num_pictures:,}",
        kind=gallery.kind,
        factors={_cell(factor.name): [_cell(value) for value in factor.values] for factor in gallery.factors},
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
    return f"datasets.load_dataset({str(out)!r}, 'items', split='test')"


def write_vlmevalkit(pairs: PairSet, folder: Path, out: Path) -> str:
    """A table of multiple-choice questions for LMUData: index, image in base64, question, options by letter, answer, and our id."""
    name, most = f"{pairs.task}.tsv", max(len(item.choices) for item in pairs.items)
    if most > len(LETTERS):
        raise BadInput(
            f"a question has {most} choices, but VLMEvalKit letters at most {len(LETTERS)}; export as lmms-eval with --prompt free"
        )
    if lost := next((choice for item in pairs.items for choice in item.choices if choice.strip() in MISSING), None):
        raise BadInput(f"VLMEvalKit would read the choice {lost!r} as a missing value; write it otherwise, or export as lmms-eval")
    with (folder / name).open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, delimiter="\t")
        table.writerow(["index", "id", "image", "picture", "question", *LETTERS[:most], "answer"])
        for index, row in enumerate(pairs.rows()):
            image = base64.b64encode(row["image"]["bytes"]).decode()
            options = row["choices"] + [""] * (most - len(row["choices"]))
            letter = LETTERS[row["choices"].index(row["answer"])]
            table.writerow([index, row["id"], image, row["picture"], row["question"], *options, letter])
    return f"LMUData={out} PRED_FORMAT=tsv python run.py --data {pairs.task} --model MODEL --mode infer"


WRITERS: Mapping[Format, Callable[[PairSet, Path, Path], str]] = {
    "lmms-eval": write_lmms_eval,
    "datasets": write_datasets,
    "vlmevalkit": write_vlmevalkit,
}
"""Each writes a set into a folder that will become `out`, and gives the line that uses it."""

PAIR_COLUMNS = ("kind", "factor", "value_before", "value_after", "query", "form", "name")
PAIRS_SCHEMA = pa.schema([("scene", pa.int64()), *((name, pa.string()) for name in (*PAIR_COLUMNS, "before", "after"))])


def _pair_rows(pairs: PairSet) -> Iterator[dict[str, Any]]:
    for row in pairs.plan.rows.iter_rows(named=True):
        ids = {
            side: item_id(pairs.pictures, row[f"picture_{side}"], row[f"question_{side}"], row["choices"]) for side in ("before", "after")
        }
        yield {"scene": row["scene"], **{name: row[name] for name in PAIR_COLUMNS}, **ids}


def _cell(text: str) -> str:
    """Text for a cell of a table in Markdown."""
    return " ".join(text.replace("|", "\\|").split())
