"""What flip and the studies that build on it share: target and proxy, sizes of runs, the arms' policies, and the values that claims use."""

from __future__ import annotations

from dataclasses import replace

from theodolite.studies.engine.study import Value, if_competent, moved_frac_of
from theodolite.training.recipe import Recipe, tour_shapes
from theodolite.worlds.shapes.world import Shapes

TARGET, PROXY, FILLER = "shape", "colour", "row"
STRENGTHS = (0.0, 0.5, 0.8, 0.9, 0.95, 1.0)
MAIN, RARE = 0.8, 0.95
NUM_PICTURES, NUM_SCENES = 12_000, 100
STEPS, QUICK_STEPS = 300, 240
# Factors that are correlated with nothing and that no policy asks about.
INERT = ("size", "column", "texture", "ground", "letter", "tilt", "sheen")

LEAK = if_competent(moved_frac_of(PROXY, TARGET, truth_moves=False), TARGET)
READ = if_competent(moved_frac_of(TARGET, TARGET, truth_moves=True), TARGET)
# Panels of figures: what the answers about the target follow.
ANSWERS: tuple[tuple[str, Value], ...] = ((f"leak: do({PROXY}) → {TARGET} answer", LEAK), (f"read: do({TARGET}) → {TARGET} answer", READ))
PROXY_READ = if_competent(moved_frac_of(PROXY, PROXY, truth_moves=True), PROXY)


def policies() -> dict[str, str]:
    """The query policy of each arm by name: two questions a picture, about the filler where not about the target.

    *odd2* and *odd4* ask the target twice and four times as often of scenes that break the correlation; *conjunctions* asks about two
    values together ("is it red and round?"), yes as often as no.
    """
    pairs = [f"{TARGET}={one}&{PROXY}={other}" for one in Shapes().space[TARGET].values for other in Shapes().space[PROXY].values]
    halves = [line for pair in pairs for line in (f"{pair}:yes*0.5", f"{pair}:no*{0.5 / (len(pairs) - 1)!r}")]
    return {
        "agree": f"{TARGET}:agree,{FILLER}:odd,{FILLER}",
        "all": f"{TARGET},{FILLER}",
        "both": f"{TARGET},{PROXY}",
        "odd2": f"{TARGET},{TARGET}:odd,{FILLER}:agree",
        "odd4": f"{TARGET}:agree*0.5,{TARGET}:odd*2,{FILLER}:agree*1.5",
        "conjunctions": ",".join([*halves, FILLER]),
    }


def study_recipe(steps: int = STEPS) -> Recipe:
    """The recipe of the runs of studies: that of the tour of shapes, with more steps."""
    return replace(tour_shapes(), name="study-shapes", steps=steps)


ESSAY = "essay, 'The Coverage Lock'"
TRIAL = "a trial before this study"
TRIED_TEXT = "a one-seed trial before these rules, at strength 0.8"
DIFFER = "difference of shares of pairs, paired by seed"
