"""The list of pairs of a survey page: all pairs packed for its script, their pictures, and the first failing ones as plain HTML."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from theodolite.report.survey.arms import SurveyArm
from theodolite.report.survey.examples import ShownPair, shown_examples, shown_row
from theodolite.report.survey.pair_columns import AnsweredPair, answered_pairs, has_rows, pair_columns, pools_of
from theodolite.report.words import listed, show_count

# Beyond these the page would not stay under 5 MB with its charts and exports.
MOST_PAIRS = 20_000
MOST_PICTURE_BYTES = 890_000
NUM_PLAIN = 6
# Addresses of original pictures by pool (`pair_columns.pools_of`) and number.
Files = Mapping[int, Mapping[int, str]]


@dataclass(frozen=True, eq=False)
class PairList:
    """What the page shows of pairs: `plain` without JavaScript; `packed` all of them for the script (gzip of JSON, as base64), None
    where no rows are stored; `pictures` WebP files as base64 by "pool-number"; `note` says what the page does not hold."""

    plain: tuple[ShownPair, ...]
    packed: str | None = None
    pictures: Mapping[str, str] = field(default_factory=dict)
    note: str = ""
    num_failing: int = 0


def pair_list(arms: Sequence[SurveyArm], files: Files) -> PairList:
    """The list of all answered pairs; of records without rows, their examples."""
    every = answered_pairs(arms)
    if not every:
        return PairList(shown_examples(arms))
    ranked = sorted(every, key=lambda pair: (pair.row["kind"] != "intervention", -pair.severity))
    shown = ranked[:MOST_PAIRS]
    chosen = {id(pair) for pair in shown}
    pairs = [pair for pair in every if id(pair) in chosen]  # in the order of the rows
    pictures = _pictures(arms, shown)
    text = json.dumps(pair_columns(pairs, arms, files), ensure_ascii=False, separators=(",", ":"))
    failing = [pair for pair in ranked if pair.row["kind"] == "intervention" and pair.severity >= 1]
    urls = {key: f"data:image/webp;base64,{data}" for key, data in pictures.items()}
    urls |= {f"{pool}-{number}": url for pool, own in files.items() for number, url in own.items()}
    return PairList(
        tuple(shown_row(pair, arms, urls) for pair in (failing or ranked)[:NUM_PLAIN]),
        b64encode(gzip.compress(text.encode(), mtime=0)).decode(),
        pictures,
        _note(arms, every, shown, set(urls), bool(files)),
        len(failing),
    )


def _pictures(arms: Sequence[SurveyArm], ranked: Sequence[AnsweredPair]) -> dict[str, str]:
    """The stored thumbnails of whole pairs in this order, as base64, up to `MOST_PICTURE_BYTES`."""
    pools, stored = pools_of(arms), dict[tuple[int, int], bytes]()
    for arm in arms:
        stored |= {(pools[arm.record.pictures_sha256], number): data for number, data in arm.stored.thumbnails.items()}
    chosen: dict[tuple[int, int], bytes] = {}
    num_bytes = 0
    for pair in ranked:
        keys = {pair.picture("before"), pair.picture("after")} - set(chosen)
        if not all(key in stored for key in keys):
            continue
        num_bytes += sum(len(stored[key]) for key in keys)
        if num_bytes > MOST_PICTURE_BYTES:
            break
        chosen |= {key: stored[key] for key in sorted(keys)}
    return {f"{pool}-{number}": b64encode(data).decode() for (pool, number), data in chosen.items()}


def _note(arms: Sequence[SurveyArm], every: Sequence[AnsweredPair], shown: Sequence[AnsweredPair], urls: set[str], linked: bool) -> str:
    """How many pairs have a picture, and what is left out."""
    pictured = sum(all("{}-{}".format(*pair.picture(side)) in urls for side in ("before", "after")) for pair in shown)
    where = "beside the page" if linked else "in the page, those that failed most severely first"
    parts = [f"{show_count(pictured)} of {show_count(len(shown))} pairs have their pictures {where}."]
    if pictured < len(shown) and not linked:
        parts.append("theodolite report --pairs-dir writes them all beside it.")
    if len(shown) < len(every):
        parts.append(f"{show_count(len(every))} pairs were asked; the page holds the {show_count(len(shown))} worst, rows.parquet all.")
    if missing := [arm.label for arm in arms if not has_rows(arm)]:
        parts.append(f"No rows are stored of {listed(missing)}.")
    return " ".join(parts)
