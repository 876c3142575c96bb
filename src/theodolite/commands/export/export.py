"""The export of a manifest's pairs into a format of other tools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from theodolite.commands.export.formats import WRITERS, Format
from theodolite.commands.export.writing import PairSet
from theodolite.measurement.pairs.items import items_of
from theodolite.measurement.pairs.plan import plan_gallery
from theodolite.records.asking import PromptStyle
from theodolite.records.errors import BadInput
from theodolite.records.folder import refuse_taken, whole_folder
from theodolite.worlds.limits import PixelLimits
from theodolite.worlds.manifest.faults import fault_lines
from theodolite.worlds.manifest.read import read_manifest

PLANNED_SIZE = 64  # of pictures that are not files; these are, and keep their size


def export_manifest(
    manifest: Path,
    layout: Format,
    out: Path,
    *,
    prompt: PromptStyle = "letters",
    noise: Literal["perturb", "given"] = "perturb",
    overwrite: bool = False,
    say: Callable[[str], None] = print,
) -> str:
    """Writes the usable rows of a manifest to `out`, complete or not at all, and gives the line that uses it.

    With `noise` *perturb* queries without noise rows get slightly changed pictures, as a survey asks for them. Raises `BadInput`.
    """
    refuse_taken(out, overwrite=overwrite)
    if layout == "vlmevalkit" and prompt != "letters":
        raise BadInput(f"--prompt {prompt}: VLMEvalKit letters the choices itself; leave --prompt out")
    checked = read_manifest(manifest)
    for line in fault_lines(checked.faults):
        say(line)
    plan = plan_gallery(checked.gallery, PLANNED_SIZE, noise, PixelLimits())
    pairs = PairSet(manifest.parent, checked.gallery, plan, tuple(items_of(plan)), prompt)
    with whole_folder(out, overwrite=overwrite) as folder:
        line = WRITERS[layout](pairs, folder, out)
    say(f"{out}: {len(pairs.items):,} questions about {pairs.num_pictures:,} pictures, {len(plan.rows):,} comparisons, as {layout}")
    return line
