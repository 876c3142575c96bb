"""One vector a picture, from any Hugging Face vision model, an encoder of this package, or the encoder within a VLM."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModel, PreTrainedConfig

from theodolite.blind_pairs.vector_store import VectorStore
from theodolite.models.construction.encoders import OWN, encoder_named
from theodolite.models.families import EXPORTED, FAMILIES, family_of
from theodolite.models.fingerprint import weights_hash
from theodolite.models.load import DType, load_vlm, loading
from theodolite.models.pictures import PictureReader, ProcessedPicture
from theodolite.models.vision_features import encode_pictures
from theodolite.records.errors import BadInput

Pooling = Literal["image_embeds", "pooler_output", "class token", "mean of tokens", "mean of the encoder's tokens"]
Inputs = Mapping[str, Tensor]
PROBE = (96, 128)  # rows and columns of the picture of noise that a model is tried on
# Settings that change no vector, by name, at any depth; a VLM's language model is none of its encoder's business.
IDLE = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "text_config")
FORMAT = 1  # of what a vector means; another number here, and everything is embedded anew


class Embedder:
    """Turns pictures into vectors, one each, as `pooling` says:

    image_embeds: what a two-tower model (CLIP, SigLIP) compares with texts. pooler_output: the model's own summary, unless its weights are
    not in the checkpoint. class token: of the last layer, where there is one. mean of tokens: of the last layer. mean of the encoder's
    tokens: of a VLM's encoder, before its connector.

    `name` is a Hugging Face folder or name, or an encoder of this package (conv, patches:64/8, lite0:128/16). `identity` tells apart
    everything that changes vectors: weights, settings, pooling, precision, image processor. Raises `BadInput` if there is no such model,
    its weights are not all there, or it gives no single finite vector, and the same one twice, for a picture.
    """

    def __init__(self, name: str, device: str = "cpu", dtype: DType = "float32") -> None:
        self.name, self.dtype = name, dtype
        target = _device(device)
        self._way = _way(name, device, dtype)
        self._way.model.to(target, getattr(torch, dtype)).eval()
        self.model_type = str(self._way.model.config.model_type)
        self.weights_sha256 = weights_hash(self._way.encoder)
        probe = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*PROBE, 3), dtype=np.uint8))
        first, second = self([probe]), self([probe])
        if not np.array_equal(first, second):
            raise BadInput(f"{name} gives another vector each time it sees a picture; take a model that is the same in evaluation")
        self.pooling: Pooling = self._way.pooling
        self.dim = first.shape[1]
        settings = [_settings(part.to_dict()) for part in (self._way.model.config, self._way.image_processor)]
        parts = (FORMAT, self.weights_sha256, self.pooling, dtype, json.dumps(settings, sort_keys=True, default=str))
        self.identity = hashlib.sha256(repr(parts).encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "picture dim"]:
        """Vectors of RGB pictures of any sizes, in float32. Raises `BadInput` if one is not finite."""
        inputs = [self._way.read(picture) for picture in pictures]
        found: list[Tensor | None] = [None] * len(pictures)
        for alike in _alike(inputs):
            vectors = self._way.vectors([inputs[at] for at in alike])
            if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != len(alike):
                raise BadInput(f"{self.name} gives no single vector a picture; take CLIP, SigLIP, DINOv2, ViT or a VLM of docs/families.md")
            for at, vector in zip(alike, vectors.float().cpu(), strict=True):
                found[at] = vector
        result = torch.stack([vector for vector in found if vector is not None]).numpy()
        if not np.isfinite(result).all():
            raise BadInput(f"{self.name} gives NaN or infinity for a picture in {self.dtype}; use --dtype float32")
        return result


def embed(
    embedder: Embedder,
    store: VectorStore,
    pictures: Mapping[str, Callable[[], Image.Image | None]],
    batch: int,
    tell: Callable[[int, int], None],
) -> list[str]:
    """Puts the vectors of those pictures into the store that it lacks; returns the keys of the pictures that cannot be read (None).

    Pictures are in batches in their order, so a run that was cut off and goes on makes the same batches, and the same vectors.
    """
    missing = [key for key in pictures if key not in store]
    broken: list[str] = []
    waiting: dict[str, Image.Image] = {}
    for at, key in enumerate(missing, start=1):
        picture = pictures[key]()
        if picture is None:
            broken.append(key)
        else:
            waiting[key] = picture
        if len(waiting) == batch or (waiting and at == len(missing)):
            store.add(list(waiting), embedder(list(waiting.values())))
            waiting = {}
        tell(at, len(missing))
    return broken


class _Way(ABC):
    """How one kind of model makes vectors: from a picture its inputs, and from the inputs of pictures of one shape their vectors."""

    model: Any
    image_processor: Any
    pooling: Pooling

    @property
    def encoder(self) -> nn.Module:
        """What of the model makes the vectors."""
        return cast(nn.Module, self.model)

    def read(self, picture: Image.Image) -> Any:
        """The inputs of one picture."""
        return dict(self.image_processor([picture], return_tensors="pt"))

    @abstractmethod
    def vectors(self, inputs: Sequence[Any]) -> Any:
        """The vectors of pictures whose inputs are of one shape."""

    def _joined(self, inputs: Sequence[Inputs]) -> dict[str, Any]:
        """The inputs of several pictures as the model takes them."""
        joined = {name: torch.cat([each[name] for each in inputs]) for name, value in inputs[0].items() if isinstance(value, Tensor)}
        return {name: self._placed(value) for name, value in joined.items()}

    def _placed(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)


class _TwoTowers(_Way):
    """CLIP, SigLIP and their like: the vector that is compared with texts."""

    pooling = "image_embeds"

    def __init__(self, model: Any, image_processor: Any) -> None:
        self.model, self.image_processor = model, image_processor

    def vectors(self, inputs: Sequence[Inputs]) -> Any:
        output = self.model.get_image_features(**self._joined(inputs))
        return output if isinstance(output, Tensor) else output.pooler_output


class _Tower(_Way):
    """A vision model alone."""

    def __init__(self, model: Any, image_processor: Any, *, has_pooler: bool) -> None:
        self.model, self.image_processor, self._has_pooler = model, image_processor, has_pooler
        self._has_class_token = any("class_embedding" in name or "cls_token" in name for name, _ in model.named_parameters())

    def vectors(self, inputs: Sequence[Inputs]) -> Any:
        output = self.model(**self._joined(inputs), return_dict=True)
        pooled = output.get("pooler_output")
        if pooled is not None and self._has_pooler:
            self.pooling = "pooler_output"
            return pooled.flatten(1)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # a map of a convolutional model: channels, rows, columns
            tokens = tokens.flatten(2).transpose(1, 2)
        self.pooling = "class token" if self._has_class_token else "mean of tokens"
        return tokens[:, 0] if self._has_class_token else tokens.float().mean(dim=1)


class _Within(_Way):
    """The encoder of a VLM of the families table, with the VLM's own way of cutting pictures into tiles."""

    pooling = "mean of the encoder's tokens"

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.image_processor = model, processor.image_processor
        self._reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)

    @property
    def encoder(self) -> nn.Module:
        return cast(nn.Module, self.model.get_submodule(family_of(self.model.config).encoder))

    def read(self, picture: Image.Image) -> ProcessedPicture:
        return self._reader.read(picture)

    def vectors(self, inputs: Sequence[ProcessedPicture]) -> Any:
        pixels = {name: self._placed(value) for name, value in self._reader.join(inputs).items()}
        patches = encode_pictures(self.model, pixels, len(inputs), patches=True).patches
        return None if patches is None else patches.float().mean(dim=1)


def _way(name: str, device: str, dtype: DType) -> _Way:
    if name.partition(":")[0] in OWN:
        own = encoder_named(name)
        return _Tower(own.tower, own.image_processor, has_pooler=True)
    with loading("vision model", name):
        found = str(PreTrainedConfig.get_config_dict(name)[0].get("model_type"))
    if found.removeprefix(EXPORTED) in FAMILIES:
        return _Within(*load_vlm(name, device, dtype))
    with loading("vision model", name):
        image_processor = _image_processor(name)
        model, info = AutoModel.from_pretrained(name, dtype=getattr(torch, dtype), output_loading_info=True)
    two_towers = isinstance(model, nn.Module) and callable(getattr(model, "get_image_features", None))
    missing = sorted(info["missing_keys"])
    # Checkpoints without a pooler are common (DINO, MAE), and its weights are then drawn anew: noise that looks like a summary.
    fatal = [key for key in missing if two_towers or "pooler" not in key]
    if fatal:
        raise BadInput(f"{name} lacks {len(fatal)} of its weights ({fatal[0]} ...), which would be noise; give a whole checkpoint")
    return _TwoTowers(model, image_processor) if two_towers else _Tower(model, image_processor, has_pooler=not missing)


def _image_processor(name: str) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(name, backend="pil")
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error).lower():
            raise
        raise BadInput(
            f"the image processor of {name} has no form on Pillow, so it needs torchvision; install it, or take another model"
        ) from error


def _settings(found: Any) -> Any:
    """Settings without those that are idle."""
    if isinstance(found, dict):
        return {str(name): _settings(value) for name, value in found.items() if name not in IDLE}
    return [_settings(value) for value in found] if isinstance(found, list | tuple) else found


def _alike(inputs: Sequence[Any]) -> list[list[int]]:
    """The positions of pictures, those whose inputs have the same shapes together."""
    groups: dict[object, list[int]] = {}
    for at, each in enumerate(inputs):
        held = each.inputs if isinstance(each, ProcessedPicture) else each
        shapes = tuple((key, tuple(value.shape)) for key, value in sorted(held.items()) if isinstance(value, Tensor))
        groups.setdefault((shapes, each.tokens if isinstance(each, ProcessedPicture) else 0), []).append(at)
    return list(groups.values())


def _device(name: str) -> torch.device:
    try:
        target = torch.device(name)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device {name!r} is not to be had here ({str(error).splitlines()[0]}); give cpu, cuda or cuda:1") from error
    return target
