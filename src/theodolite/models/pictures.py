"""Pictures as a model reads them: the text that stands for each, and its pixel inputs, from an image processor and a tokenizer alone.

The library's Processors do the same in one step, but several of them need torchvision; here an image processor on Pillow is enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from theodolite.models.exported.grids import picture_grids
from theodolite.models.families import family_of, image_token_id
from theodolite.records.errors import BadInput


@dataclass(frozen=True, eq=False)
class ProcessedPicture:
    """One picture: the text that stands in the prompt for it, its share of the forward's keyword arguments, its number of image tokens."""

    placeholder: str
    inputs: dict[str, Tensor]
    tokens: int


@dataclass(frozen=True)
class PlaceholderTokens:
    """The strings that a tokenizer has for pictures: one image token, and what may stand around a picture's tokens."""

    image: str
    start: str = ""
    end: str = ""


@dataclass(frozen=True)
class PlaceholderFormat:
    """How a family writes a picture, and how its inputs are joined.

    `marker` is the sign that chat templates write for a whole picture; `options` go to the image processor besides its own settings.
    """

    signs: Callable[[Any, Any], PlaceholderTokens]
    # From the signs, the number of tokens of each tile, and what the image processor said.
    write: Callable[[PlaceholderTokens, Sequence[int], Mapping[str, Any]], str]
    join: Callable[[Mapping[str, list[Tensor]]], dict[str, Tensor]]
    marker: Literal["image", "start"] = "image"
    options: Mapping[str, bool] = field(default_factory=dict)


class PictureReader:
    """Reads pictures for one model. Whether it cuts them into tiles or crops is as the image processor is set.

    `marker` is what the model's chat template writes for one picture. Raises `UnknownFamily`, and `BadInput` if the tokenizer lacks the
    configuration's image token or the vision tower takes pictures of any size (Pixtral).
    """

    def __init__(self, image_processor: Any, tokenizer: Any, config: Any) -> None:
        self.family = family_of(config)
        self.image_processor, self.config = image_processor, config
        if self.family.name == "llava" and config.vision_config.model_type == "pixtral":
            raise BadInput("a LLaVA on a Pixtral tower writes pictures in a way that is not known here; take one on CLIP or SigLIP")
        self._notation = NOTATIONS[self.family.name]
        self._signs = self._notation.signs(tokenizer, config)
        self.marker: str = getattr(self._signs, self._notation.marker)

    def read(self, picture: Image.Image) -> ProcessedPicture:
        """A picture that is the only one of its conversation."""
        return self.read_conversation([picture])[0]

    def read_conversation(self, pictures: Sequence[Image.Image]) -> list[ProcessedPicture]:
        """The pictures of one conversation, in order. LLaVA-OneVision gives each a base view only where there are several."""
        return [self._read(output) for output in self._process([picture.convert("RGB") for picture in pictures])]

    def expand(self, text: str, reads: Sequence[ProcessedPicture]) -> str:
        """A rendered chat template with each marker replaced by a placeholder, in order. Raises `ValueError` if the counts differ."""
        parts = text.split(self.marker)
        if len(parts) != len(reads) + 1:
            raise ValueError(f"the text holds {len(parts) - 1} markers {self.marker!r} for {len(reads)} pictures; write one for each")
        return parts[0] + "".join(read.placeholder + part for read, part in zip(reads, parts[1:], strict=True))

    def join(self, reads: Sequence[ProcessedPicture]) -> dict[str, Tensor]:
        """The keyword arguments of one forward for pictures in the order of their tokens in the batch; none for no pictures.

        Pictures of one conversation must stay together. Raises `ValueError` if they do not (LLaVA-OneVision).
        """
        if not reads:
            return {}
        columns = {name: [read.inputs[name] for read in reads] for name in reads[0].inputs}
        return self._notation.join(columns)

    def _process(self, pictures: list[Image.Image]) -> list[dict[str, Any]]:
        """What the image processor says of each picture."""
        if self.family.name == "llava_onevision" and len(pictures) > 1:
            output = self.image_processor([pictures], return_tensors="pt")
            several = output["batch_num_images"]
            return [
                {
                    "pixel_values": output["pixel_values"][at, None],
                    "image_sizes": output["image_sizes"][at, None],
                    "batch_num_images": several,
                }
                for at in range(len(pictures))
            ]
        return [dict(self.image_processor([picture], return_tensors="pt", **self._notation.options)) for picture in pictures]

    def _read(self, output: dict[str, Any]) -> ProcessedPicture:
        inputs = {name: output[name] for name in self.family.pixel_inputs if name in output}
        tiles = [len(grid) for grid in picture_grids(self.config, inputs)]
        return ProcessedPicture(self._notation.write(self._signs, tiles, output), inputs, sum(tiles))


def _image_sign(tokenizer: Any, config: Any) -> PlaceholderTokens:
    return PlaceholderTokens(_token(tokenizer, image_token_id(config), "image_token_id"))


def _gemma_signs(tokenizer: Any, config: Any) -> PlaceholderTokens:
    return PlaceholderTokens(
        _token(tokenizer, image_token_id(config), "image_token_id"),
        _token(tokenizer, config.boi_token_id, "boi_token_id"),
        _token(tokenizer, config.eoi_token_id, "eoi_token_id"),
    )


def _internvl_signs(tokenizer: Any, config: Any) -> PlaceholderTokens:
    image = _token(tokenizer, image_token_id(config), "image_token_id")
    return PlaceholderTokens(image, getattr(tokenizer, "start_image_token", "<img>"), getattr(tokenizer, "end_image_token", "</img>"))


def _idefics_signs(tokenizer: Any, config: Any) -> PlaceholderTokens:
    image = _token(tokenizer, image_token_id(config), "image_token_id")
    fake = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
    return PlaceholderTokens(image, fake, getattr(tokenizer, "global_image_token", "<global-img>"))


def _token(tokenizer: Any, number: int, name: str) -> str:
    found = tokenizer.convert_ids_to_tokens(number)
    if found is None:
        raise BadInput(f"the configuration's {name} is {number}, which the tokenizer does not have; take the tokenizer of this model")
    return str(found)


def _repeated(signs: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    return signs.image * sum(tiles)


def _framed(signs: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    return f"{signs.start}{signs.image * sum(tiles)}{signs.end}"


def _with_crops(signs: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    """Gemma 3: the whole picture, then its crops (pan and scan), each framed and on lines of its own."""
    whole, *crops = (f"\n\n{signs.start}{signs.image * tokens}{signs.end}\n\n" for tokens in tiles)
    if not crops:
        return whole
    return f"Here is the original image {whole} and here are some crops to help you see better {' '.join(crops)}"


def _with_places(signs: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    """Idefics3 and SmolVLM: tiles named by row and column, a line for each row, then the whole picture. `signs.end` names the whole."""
    (rows,), (columns,) = output["rows"][0], output["cols"][0]
    *parts, whole = (signs.image * tokens for tokens in tiles)
    named = [f"{signs.start}<row_{at // columns + 1}_col_{at % columns + 1}>{part}" for at, part in enumerate(parts)]
    lines = "".join("".join(named[row * columns : (row + 1) * columns]) + "\n" for row in range(rows))
    return f"{lines}{chr(10) if lines else ''}{signs.start}{signs.end}{whole}{signs.start}"


def _join_rows(columns: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(parts) for name, parts in columns.items()}


def _join_tiles(columns: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """All tiles in one row: the stock forward flattens rows, so only their order counts."""
    return {name: torch.cat(parts, dim=1) for name, parts in columns.items()}


def _join_padded(columns: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Pictures of different numbers of tiles, padded with tiles of 0 at the end; each conversation's number of pictures once."""
    most = max(part.shape[1] for part in columns["pixel_values"])
    pixels = [F.pad(part, (0, 0) * 3 + (0, most - part.shape[1])) for part in columns["pixel_values"]]
    counts = torch.cat(columns["batch_num_images"]).tolist()
    firsts = []
    while counts:
        first, together = counts[0], counts[: counts[0]]
        if together != [first] * first:
            raise ValueError(
                f"a conversation of {first} pictures is joined with {len(together)} of others; keep a conversation's pictures together"
            )
        firsts.append(first)
        counts = counts[first:]
    return {"pixel_values": torch.cat(pixels), "image_sizes": torch.cat(columns["image_sizes"]), "batch_num_images": torch.tensor(firsts)}


PLAIN = PlaceholderFormat(_image_sign, _repeated, _join_rows)
PLACED = PlaceholderFormat(_idefics_signs, _with_places, _join_tiles, options={"return_row_col_info": True})
NOTATIONS: Mapping[str, PlaceholderFormat] = {
    "llava": PLAIN,
    "llava_onevision": PlaceholderFormat(_image_sign, _repeated, _join_padded),
    "qwen2_vl": PLAIN,
    "qwen2_5_vl": PLAIN,
    "qwen3_vl": PLAIN,
    "paligemma": PLAIN,
    "gemma3": PlaceholderFormat(_gemma_signs, _with_crops, _join_rows, marker="start"),
    "internvl": PlaceholderFormat(_internvl_signs, _framed, _join_rows),
    "idefics3": PLACED,
    "smolvlm": PLACED,
}
