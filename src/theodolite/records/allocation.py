"""Share of attention from question and answer tokens to vision tokens, by layer and head."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class LayerAllocation(Part):
    """One layer of the language model; shares are means over text tokens after the picture, then over pictures."""

    share: Estimate = Field(description="share of attention that goes to vision tokens, mean over heads, 0 to 1")
    baseline: Estimate = Field(description="share of vision tokens among the tokens attended to: what uniform attention would give, 0 to 1")
    excess: Estimate = Field(description="share minus baseline, paired by picture, -1 to 1")
    heads: tuple[float, ...] = Field(description="share of each head, mean over pictures, 0 to 1")


class Allocation(Part):
    """Allocation of attention by layer. A share is not an effect: compare with shuffle and mean."""

    num_scenes: int = Field(description="scenes, the first in order; one picture each")
    num_questions: int = Field(description="open questions a picture at most")
    layers: dict[str, LayerAllocation] = Field(description="by site: layer.1 to the last layer")
