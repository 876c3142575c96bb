"""Picture preprocessing by family: each picture's placeholder text and its pixel inputs, from an image processor and a tokenizer.

The library's Processors do both in one step, but several of them need torchvision; this module only needs an image processor on Pillow.
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
from theodolite.models.fixed_size import FixedSizePixels
from theodolite.models.image_processor import on_pillow
from theodolite.records.errors import BadInput


@dataclass(frozen=True, eq=False)
class ProcessedPicture:
    """One picture: its placeholder text in the prompt, its part of the forward's keyword arguments, its number of image tokens."""

    placeholder: str
    inputs: dict[str, Tensor]
    tokens: int


@dataclass(frozen=True)
class PlaceholderTokens:
    """A tokenizer's special tokens for pictures: the image token, and the tokens around a picture's image tokens, if any."""

    image: str
    start: str = ""
    end: str = ""


@dataclass(frozen=True)
class PlaceholderFormat:
    """A family's placeholder of a picture, and how it joins the inputs of several.

    `marker` is the token that chat templates write for a whole picture; `options` are extra arguments of the image processor.
    """

    special_tokens: Callable[[Any, Any], PlaceholderTokens]  # of (tokenizer, configuration)
    # The placeholder, of (special tokens, number of image tokens of each tile, output of the image processor).
    write: Callable[[PlaceholderTokens, Sequence[int], Mapping[str, Any]], str]
    join: Callable[[Mapping[str, list[Tensor]]], dict[str, Tensor]]
    marker: Literal["image", "start"] = "image"
    options: Mapping[str, bool] = field(default_factory=dict)


class PictureReader:
    """Preprocesses pictures for one model, on Pillow. The image processor's settings decide whether they are cut into tiles or crops.

    `marker` is the string that the model's chat template writes for one picture. Raises `UnknownFamily`, and `BadInput` if the tokenizer
    lacks the configuration's image token or the vision tower takes pictures of any size (Pixtral).
    """

    def __init__(self, image_processor: Any, tokenizer: Any, config: Any) -> None:
        self.family = family_of(config)
        self.image_processor, self.config = on_pillow(image_processor), config
        if self.family.name == "llava" and config.vision_config.model_type == "pixtral":
            raise BadInput("the placeholder format of a LLaVA on a Pixtral tower is not supported; take one on CLIP or SigLIP")
        self._format = PLACEHOLDER_FORMATS[self.family.name]
        self._fixed_size = None if self._format.options else FixedSizePixels.of(self.image_processor)
        self._special_tokens = self._format.special_tokens(tokenizer, config)
        self.marker: str = getattr(self._special_tokens, self._format.marker)

    def read(self, picture: Image.Image) -> ProcessedPicture:
        """The processed form of a picture that is the only one of its conversation."""
        return self.read_conversation([picture])[0]

    def read_conversation(self, pictures: Sequence[Image.Image]) -> list[ProcessedPicture]:
        """The processed pictures of one conversation, in order. Where there are several, LLaVA-OneVision gives each a base view only."""
        return [self._processed(output) for output in self._outputs([picture.convert("RGB") for picture in pictures])]

    def expand(self, text: str, processed: Sequence[ProcessedPicture]) -> str:
        """A rendered chat template with each marker replaced by a placeholder, in order. Raises `ValueError` if the counts differ."""
        start, *texts = text.split(self.marker)
        if len(texts) != len(processed):
            raise ValueError(f"the text holds {len(texts)} markers {self.marker!r} for {len(processed)} pictures; write one for each")
        return start + "".join(read.placeholder + text for read, text in zip(processed, texts, strict=True))

    def join(self, processed: Sequence[ProcessedPicture]) -> dict[str, Tensor]:
        """The keyword arguments of one forward for pictures in the order of their tokens in the batch; empty without pictures.

        Raises `ValueError` if the pictures of a conversation are not adjacent (LLaVA-OneVision).
        """
        if not processed:
            return {}
        columns = {name: [read.inputs[name] for read in processed] for name in processed[0].inputs}
        return self._format.join(columns)

    def _outputs(self, pictures: list[Image.Image]) -> list[dict[str, Any]]:
        """The image processor's output for each picture."""
        if self._fixed_size is not None:
            return [{"pixel_values": self._fixed_size(picture)} for picture in pictures]
        if self.family.name == "llava_onevision" and len(pictures) > 1:
            output = self.image_processor([pictures], return_tensors="pt")
            by_picture = ("pixel_values", "image_sizes")
            return [
                {**{name: output[name][index, None] for name in by_picture}, "batch_num_images": output["batch_num_images"]}
                for index in range(len(pictures))
            ]
        return [dict(self.image_processor([picture], return_tensors="pt", **self._format.options)) for picture in pictures]

    def _processed(self, output: dict[str, Any]) -> ProcessedPicture:
        inputs = {name: output[name] for name in self.family.pixel_inputs if name in output}
        tiles = [len(grid) for grid in picture_grids(self.config, inputs)]
        return ProcessedPicture(self._format.write(self._special_tokens, tiles, output), inputs, sum(tiles))


def _image_token(tokenizer: Any, config: Any) -> PlaceholderTokens:
    return PlaceholderTokens(_token(tokenizer, image_token_id(config), "image_token_id"))


def _gemma_tokens(tokenizer: Any, config: Any) -> PlaceholderTokens:
    return PlaceholderTokens(
        _token(tokenizer, image_token_id(config), "image_token_id"),
        _token(tokenizer, config.boi_token_id, "boi_token_id"),
        _token(tokenizer, config.eoi_token_id, "eoi_token_id"),
    )


def _internvl_tokens(tokenizer: Any, config: Any) -> PlaceholderTokens:
    image = _token(tokenizer, image_token_id(config), "image_token_id")
    return PlaceholderTokens(image, getattr(tokenizer, "start_image_token", "<img>"), getattr(tokenizer, "end_image_token", "</img>"))


def _idefics_tokens(tokenizer: Any, config: Any) -> PlaceholderTokens:
    image = _token(tokenizer, image_token_id(config), "image_token_id")
    fake = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
    return PlaceholderTokens(image, fake, getattr(tokenizer, "global_image_token", "<global-img>"))


def _token(tokenizer: Any, number: int, name: str) -> str:
    token = tokenizer.convert_ids_to_tokens(number)
    if token is None:
        raise BadInput(f"the configuration's {name} is {number}, which the tokenizer does not have; take the tokenizer of this model")
    return str(token)


def _repeated(special: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    return special.image * sum(tiles)


def _framed(special: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    return f"{special.start}{special.image * sum(tiles)}{special.end}"


def _with_crops(special: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    """Gemma 3: the full picture, then its crops (pan and scan), each framed and on lines of its own."""
    full, *crops = (f"\n\n{special.start}{special.image * num_tokens}{special.end}\n\n" for num_tokens in tiles)
    if not crops:
        return full
    return f"Here is the original image {full} and here are some crops to help you see better {' '.join(crops)}"


def _with_tiles(special: PlaceholderTokens, tiles: Sequence[int], output: Mapping[str, Any]) -> str:
    """Idefics3 and SmolVLM: tiles named by row and column, a line for each row, then the full picture, which `special.end` names."""
    (rows,), (columns,) = output["rows"][0], output["cols"][0]
    *images, full = (special.image * num_tokens for num_tokens in tiles)
    named = [f"{special.start}<row_{at // columns + 1}_col_{at % columns + 1}>{image}" for at, image in enumerate(images)]
    lines = "".join("".join(named[row * columns : (row + 1) * columns]) + "\n" for row in range(rows))
    return f"{lines}{chr(10) if lines else ''}{special.start}{special.end}{full}{special.start}"


def _join_rows(columns: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat(tensors) for name, tensors in columns.items()}


def _join_tiles(columns: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """All tiles in one row: the stock forward flattens rows, so only the order of the tiles matters."""
    return {name: torch.cat(tensors, dim=1) for name, tensors in columns.items()}


def _join_padded(columns: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """Pictures of different numbers of tiles, padded with tiles of 0 at the end; each conversation's number of pictures once."""
    most = max(tiles.shape[1] for tiles in columns["pixel_values"])
    pixels = [F.pad(tiles, (0, 0) * 3 + (0, most - tiles.shape[1])) for tiles in columns["pixel_values"]]
    counts = torch.cat(columns["batch_num_images"]).tolist()
    sizes = []
    while counts:
        size, conversation = counts[0], counts[: counts[0]]
        if conversation != [size] * size:
            raise ValueError(
                f"a conversation of {size} pictures is joined with some missing or not adjacent; keep a conversation's pictures together"
            )
        sizes.append(size)
        counts = counts[size:]
    return {"pixel_values": torch.cat(pixels), "image_sizes": torch.cat(columns["image_sizes"]), "batch_num_images": torch.tensor(sizes)}


PLAIN = PlaceholderFormat(_image_token, _repeated, _join_rows)
TILED = PlaceholderFormat(_idefics_tokens, _with_tiles, _join_tiles, options={"return_row_col_info": True})
PLACEHOLDER_FORMATS: Mapping[str, PlaceholderFormat] = {
    "llava": PLAIN,
    "llava_onevision": PlaceholderFormat(_image_token, _repeated, _join_padded),
    "qwen2_vl": PLAIN,
    "qwen2_5_vl": PLAIN,
    "qwen3_vl": PLAIN,
    "paligemma": PLAIN,
    "gemma3": PlaceholderFormat(_gemma_tokens, _with_crops, _join_rows, marker="start"),
    "internvl": PlaceholderFormat(_internvl_tokens, _framed, _join_rows, options={"crop_to_patches": True}),
    "idefics3": TILED,
    "smolvlm": TILED,
}
