"""Survey a model on pairs of pictures of your own, given as a manifest."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

import theodolite as th
from theodolite.models.construction.build import DecoderSize, build_vlm

COLOURS = {"red": "#c33", "blue": "#36c"}
QUESTION, CHOICES = "what colour is the mug?", list(COLOURS)


def mug(colour: str, handle: str, shift: int) -> Image.Image:
    """A drawing of a mug; replace it with two photographs of which one was edited."""
    picture = Image.new("RGB", (64, 64), "#eee")
    pen = ImageDraw.Draw(picture)
    pen.rectangle((20 + shift, 20, 44 + shift, 50), fill=COLOURS[colour])
    left = 10 if handle == "left" else 40
    pen.arc((left + shift, 26, left + 14 + shift, 44), 0, 360, fill=COLOURS[colour], width=3)
    return picture


def write_manifest(folder: Path) -> Path:
    """Eight scenes of three rows: one that should move the answer, one that should not, one for the noise floor."""
    folder.mkdir()
    rows = []
    for scene in range(8):
        colour, other = CHOICES if scene % 2 else CHOICES[::-1]
        names = {kind: f"{scene}-{kind}.png" for kind in ("base", "colour", "handle", "again")}
        mug(colour, "left", scene).save(folder / names["base"])
        mug(other, "left", scene).save(folder / names["colour"])
        mug(colour, "right", scene).save(folder / names["handle"])
        mug(colour, "left", scene + 2).save(folder / names["again"])
        common = {"scene": scene, "picture": names["base"], "question": QUESTION, "choices": CHOICES, "query": "colour"}
        rows += [
            # Read: the colour changes, and so should the answer.
            {
                **common,
                "factor": "colour",
                "from": colour,
                "to": other,
                "edited": names["colour"],
                "answer_before": colour,
                "answer_after": other,
            },
            # Leak: the handle changes sides, and the answer should stay.
            {
                **common,
                "factor": "handle",
                "from": "left",
                "to": "right",
                "edited": names["handle"],
                "answer_before": colour,
                "answer_after": colour,
            },
            # Noise: nothing changes but the place of the mug.
            {**common, "factor": "", "edited": names["again"], "answer_before": colour, "answer_after": colour},
        ]
    path = folder / "manifest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


manifest = write_manifest(Path("pairs"))
print(th.read_manifest(manifest).faults)  # () if every row can be used

# A tiny model with random weights; give the path or the hub name of yours instead.
model = build_vlm([QUESTION, *CHOICES], seed=0, decoder=DecoderSize(num_layers=2, width=32, num_heads=2))
result = th.survey_model(model, manifest)

shadows = result.record.shadows
print(shadows.verdicts)
for cell in shadows.cells:
    print(cell.factor, "read" if cell.truth_moves else "leak", cell.moved_frac)
print(result.record.accuracy)  # item and pair accuracy, each beside what guessing gives
result.save("survey")
