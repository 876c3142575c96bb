"""Two augmented views of a picture: a token of one finds its own place among the tokens of the other, which a momentum teacher sees.

Patch-matched InfoNCE, as DenseCL (arXiv 2011.09157) has it on feature maps, with MoCo's teacher (arXiv 1911.05722). The negatives are the
picture's own other tokens, not those of other pictures, so that any split of a batch gives the same step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from theodolite.models.cached_features import passing_cache
from theodolite.models.families import family_of
from theodolite.models.forward import Adaptation, base_model, run_forward
from theodolite.models.pass_inputs import BatchPlan, part_inputs, plan_of, whole_inputs
from theodolite.objectives.auxiliary import AuxiliaryLoss, VisionPass
from theodolite.objectives.masked_latent import VisionHead
from theodolite.objectives.schedules import EMASchedule
from theodolite.objectives.terms import Term, Terms, at_least_single
from theodolite.records.errors import BadInput

UNMATCHED = -1


@dataclass(frozen=True)
class ViewsConfig:
    """Weight, temperature of the InfoNCE loss, how far views differ, and the teacher's schedule (beside LaVer it is LaVer's).

    A view is a crop of at least `least_side` (above 0 to 1) of the picture's height and width, mirrored in half of the cases, with
    contrast and brightness changed by up to `jitter` (0 to below 1).
    """

    weight: float = 1.0
    temperature: float = 0.2
    least_side: float = 0.7
    jitter: float = 0.4
    head_hidden: int = 1024
    head_width: int = 128
    ema: EMASchedule = field(default_factory=EMASchedule)

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise BadInput(f"temperature of views is {self.temperature}; it must be above 0")
        if not 0 < self.least_side <= 1 or not 0 <= self.jitter < 1:
            raise BadInput(f"least_side and jitter of views are {self.least_side} and {self.jitter}; give above 0 to 1, and 0 to below 1")


@dataclass(frozen=True)
class View:
    """A crop (top, left and side as fractions of the picture), whether it is mirrored, its contrast and brightness (1 and 0: as it is)."""

    top: float
    left: float
    side: float
    mirrored: bool
    contrast: float
    brightness: float

    @classmethod
    def draw(cls, bits: np.random.Generator, settings: ViewsConfig) -> View:
        """A view at random."""
        side = float(bits.uniform(settings.least_side, 1.0))
        top, left = (float(bits.uniform(0.0, 1.0 - side)) for _ in range(2))
        contrast, brightness = (float(bits.uniform(-settings.jitter, settings.jitter)) for _ in range(2))
        return cls(top, left, side, bool(bits.random() < 0.5), 1.0 + contrast, brightness)

    def places(self, rows: int, columns: int) -> Float[np.ndarray, "token 2"]:
        """Row and column in the picture, each 0 to 1, of the centre of every cell of the view, row by row."""
        across = (np.arange(columns) + 0.5) / columns
        row, column = np.meshgrid((np.arange(rows) + 0.5) / rows, 1.0 - across if self.mirrored else across, indexing="ij")
        return np.stack([self.top + self.side * row.ravel(), self.left + self.side * column.ravel()], axis=1)

    def cells(self, places: Float[np.ndarray, "token 2"], rows: int, columns: int) -> Int[np.ndarray, " token"]:
        """The cell of the view, row by row, in which each place of the picture lies; `UNMATCHED` outside of the view."""
        inside = (places - (self.top, self.left)) / self.side
        if self.mirrored:
            inside[:, 1] = 1.0 - inside[:, 1]
        row, column = np.floor(inside[:, 0] * rows).astype(int), np.floor(inside[:, 1] * columns).astype(int)
        is_in = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        return np.where(is_in, row * columns + column, UNMATCHED)


@dataclass(frozen=True, eq=False)
class Views:
    """Two views of every picture of a batch, and for each cell of the first the cell of the second that shows the same place."""

    first: tuple[View, ...]
    second: tuple[View, ...]
    match: Int[Tensor, "picture token"]

    @property
    def num_matched(self) -> int:
        """Cells of the first views that the second ones show too."""
        return int((self.match != UNMATCHED).sum())


def draw_views(plan: BatchPlan, settings: ViewsConfig) -> Views:
    """The views of a batch's pictures, from the collator's draws, so that every split of a batch gives a picture the same views.

    Raises `BadInput` for pictures of several sizes, or in tiles.
    """
    layout, sizes = plan.layout, plan.layout.sizes()
    if not sizes:
        return Views((), (), torch.zeros(0, 0, dtype=torch.long))
    index = layout.vision_index
    rows, columns = (int(number) + 1 for number in layout.cell.flatten(0, 1)[index].max(dim=0).values)
    if set(sizes) != {rows * columns}:
        raise BadInput(f"pictures have {sorted(set(sizes))} tokens; views needs pictures of one size, without tiles")
    ranks = plan.rank.flatten()[index].view(len(sizes), -1).numpy()
    dithers = plan.dither.flatten()[index].view(len(sizes), -1)[:, 0].tolist()
    first, second, matches = [], [], []
    for rank, dither in zip(ranks, dithers, strict=True):
        key = hashlib.sha256(b"views" + np.ascontiguousarray(rank).tobytes() + repr(dither).encode()).digest()
        bits = np.random.Generator(np.random.PCG64(int.from_bytes(key, "big")))
        one, other = View.draw(bits, settings), View.draw(bits, settings)
        first.append(one)
        second.append(other)
        matches.append(other.cells(one.places(rows, columns), rows, columns))
    return Views(tuple(first), tuple(second), torch.from_numpy(np.stack(matches)))


def seen_in(pictures: Float[Tensor, "picture 3 height width"], views: tuple[View, ...]) -> Float[Tensor, "picture 3 height width"]:
    """Each picture as its view shows it, at the size of the picture (bilinear)."""
    wide = at_least_single(pictures)
    # Columns of affine_grid's matrices: scale and shift of x and y, from -1 to 1 across a picture.
    rows = [
        [[-view.side if view.mirrored else view.side, 0.0, 2 * view.left + view.side - 1], [0.0, view.side, 2 * view.top + view.side - 1]]
        for view in views
    ]
    theta = torch.tensor(rows, dtype=wide.dtype).to(wide.device, non_blocking=True)
    contrast, brightness = (
        torch.tensor([getattr(view, name) for view in views], dtype=wide.dtype).to(wide.device, non_blocking=True)[:, None, None, None]
        for name in ("contrast", "brightness")
    )
    grid = F.affine_grid(theta, list(wide.shape), align_corners=False)
    cropped = F.grid_sample(wide, grid, mode="bilinear", padding_mode="border", align_corners=False)
    mean = cropped.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + contrast * (cropped - mean) + brightness).to(pictures.dtype)


def patch_info_nce(
    student: Float[Tensor, "picture token dim"],
    teacher: Float[Tensor, "picture token dim"],
    match: Int[Tensor, "picture token"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Cross-entropy in nats, summed over matched tokens, of finding the teacher's token of the same place among its picture's.

    Logits are cosines over the temperature. Unmatched tokens of the student are left out; no gradient reaches the teacher.
    """
    one, other = (F.normalize(at_least_single(states), dim=-1) for states in (student, teacher.detach()))
    logits = one @ other.transpose(1, 2) / temperature
    return F.cross_entropy(logits.flatten(0, 1), match.flatten(), ignore_index=UNMATCHED, reduction="sum")


class ViewsLoss(AuxiliaryLoss):
    """Patch-matched InfoNCE between the last layer's vision tokens of two views, each seen alone, without text."""

    teaches = True

    def __init__(self, width: int, adaptation: Adaptation, settings: ViewsConfig | None = None) -> None:
        super().__init__()
        self.settings, self.adaptation = settings or ViewsConfig(), adaptation
        self.head = VisionHead(width, self.settings.head_hidden, self.settings.head_width)

    def prepare(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The batch with its `views`."""
        return {**batch, "views": draw_views(plan_of(batch), self.settings)}

    def counts(self, batch: Mapping[str, Any]) -> Mapping[str, int]:
        return {"views": batch["views"].num_matched}

    def teach(self, model: nn.Module, batch: Mapping[str, Any]) -> Float[Tensor, "picture token dim"]:
        """What the head makes of the second views: call it with the teacher's weights in place."""
        return self._outputs(model, batch, batch["views"].second)

    def forward(self, seen: VisionPass) -> Terms:
        views: Views = seen.batch["views"]
        student = self._outputs(seen.model, seen.batch, views.first)
        if not views.first:
            return {"views": Term(student.sum() * 0.0, 0, self.settings.weight)}
        match = views.match.to(student.device, non_blocking=True)
        loss = patch_info_nce(student, seen.taught["views"], match, self.settings.temperature)
        return {"views": Term(loss, views.num_matched, self.settings.weight)}

    def _outputs(self, model: nn.Module, batch: Mapping[str, Any], views: tuple[View, ...]) -> Float[Tensor, "picture token dim"]:
        config, plan = base_model(model).config, plan_of(batch)
        inputs = whole_inputs(config, batch)
        if views:
            inputs = replace(inputs, pixels={**inputs.pixels, "pixel_values": self._pixels(config, inputs.pixels, views)})
        part = part_inputs(config, inputs, plan.pictures)
        with passing_cache():
            hidden = run_forward(model, part, self.adaptation).hidden
        states: Tensor = self.head(hidden.flatten(0, 1)[part.layout.vision_index])
        return states.view(len(views), -1, states.shape[-1]) if views else states[None]

    def _pixels(self, config: Any, pixels: Mapping[str, Tensor], views: tuple[View, ...]) -> Tensor:
        values = pixels["pixel_values"]
        pictures = values.flatten(0, -4) if values.ndim >= 4 else values
        if pictures.ndim != 4 or len(pictures) != len(views):
            raise BadInput(
                f"{family_of(config).name} gives pixels of shape {tuple(values.shape)} for {len(views)} pictures; views needs one array "
                "for each picture"
            )
        return seen_in(pictures, views).view_as(values)
