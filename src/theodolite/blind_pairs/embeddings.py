"""Picture embeddings from a Hugging Face vision model, an encoder of this package, or the vision encoder of a VLM."""

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
from theodolite.models.device import DType
from theodolite.models.families import EXPORTED, FAMILIES, family_of
from theodolite.models.fingerprint import weights_hash
from theodolite.models.load import load_vlm, loading, refuse_random_weights
from theodolite.models.pictures import PictureReader, ProcessedPicture
from theodolite.models.untrusted import NO_CODE, SAFE_WEIGHTS
from theodolite.models.vision_features import encode_pictures
from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress

Pooling = Literal["image_embeds", "pooler_output", "class token", "mean of tokens", "mean of the encoder's tokens"]
Inputs = Mapping[str, Tensor]
PROBE = (96, 128)  # rows and columns of the noise picture on which a model is tried
# Names of settings, at any depth, that do not affect vectors. The language model of a VLM does not affect its encoder.
IGNORED_SETTINGS = ("_name_or_path", "name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "text_config")
FORMAT = 1  # version of the embeddings; a new number invalidates stored vectors


class Embedder:
    """Computes one vector per picture. `pooling` is one of:

    image_embeds: the embedding that a two-tower model (CLIP, SigLIP) compares with texts. pooler_output: the model's pooled output, if
    the checkpoint has the pooler's weights. class token: that of the last layer, where there is one. mean of tokens: over the last
    layer. mean of the encoder's tokens: over the output of a VLM's encoder, before its connector.

    `name` is a Hugging Face folder or name, or an encoder of this package (conv, patches:64/8, lite0:128/16). `identity` is a hash of
    everything that affects vectors: weights, settings, pooling, precision, image processor. Raises `BadInput` if the model does not
    exist, lacks weights, or does not give a single, finite and reproducible vector per picture.
    """

    def __init__(self, name: str, device: str = "cpu", dtype: DType = "float32") -> None:
        self.name, self.dtype = name, dtype
        target = _device(device)
        self._encoder = _load_encoder(name, device, dtype)
        self._encoder.model.to(target, getattr(torch, dtype)).eval()
        self.model_type = str(self._encoder.model.config.model_type)
        self.weights_sha256 = weights_hash(self._encoder.encoder)
        probe = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*PROBE, 3), dtype=np.uint8))
        first, second = self([probe]), self([probe])
        if not np.array_equal(first, second):
            raise BadInput(
                f"{name} gives another vector each time for the same picture; use a model that is deterministic in evaluation mode"
            )
        self.pooling: Pooling = self._encoder.pooling
        self.dim = first.shape[1]
        settings = [_settings(source.to_dict()) for source in (self._encoder.model.config, self._encoder.image_processor)]
        fields = (FORMAT, self.weights_sha256, self.pooling, dtype, json.dumps(settings, sort_keys=True, default=str))
        self.identity = hashlib.sha256(repr(fields).encode()).hexdigest()

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> Float[np.ndarray, "picture dim"]:
        """Vectors of RGB pictures of any sizes, float32. Raises `BadInput` on non-finite vectors."""
        inputs = [self._encoder.read(picture) for picture in pictures]
        by_picture: list[Tensor | None] = [None] * len(pictures)
        for group in _same_shapes(inputs):
            vectors = self._encoder.vectors([inputs[index] for index in group])
            if not isinstance(vectors, Tensor) or vectors.ndim != 2 or len(vectors) != len(group):
                raise BadInput(
                    f"{self.name} does not give one vector per picture; use CLIP, SigLIP, DINOv2, ViT or a VLM (docs/reference/families.md)"
                )
            for index, vector in zip(group, vectors.float().cpu(), strict=True):
                by_picture[index] = vector
        result = torch.stack([vector for vector in by_picture if vector is not None]).numpy()
        if not np.isfinite(result).all():
            raise BadInput(f"{self.name} gives NaN or infinity for a picture in {self.dtype}; use --dtype float32")
        return result


def embed(
    embedder: Embedder, store: VectorStore, pictures: Mapping[str, Callable[[], Image.Image | None]], batch: int, progress: Progress
) -> list[str]:
    """Adds the missing vectors of pictures to the store; returns the keys of unreadable pictures (those that open as None).

    Batches follow the order of the pictures, so an interrupted run resumes with the same batches, hence the same vectors.
    """
    missing = [key for key in pictures if key not in store]
    unreadable: list[str] = []
    pending: dict[str, Image.Image] = {}
    for done, key in enumerate(missing, start=1):
        picture = pictures[key]()
        if picture is None:
            unreadable.append(key)
        else:
            pending[key] = picture
        if len(pending) == batch or (pending and done == len(missing)):
            store.add(list(pending), embedder(list(pending.values())))
            pending = {}
        progress(done, len(missing))
    return unreadable


class _Encoder(ABC):
    """A model of one kind: prepares the inputs of a picture, and computes vectors from inputs of equal shapes."""

    model: Any
    image_processor: Any
    pooling: Pooling

    @property
    def encoder(self) -> nn.Module:
        """The module that computes the vectors."""
        return cast(nn.Module, self.model)

    def read(self, picture: Image.Image) -> Any:
        """Model inputs of one picture."""
        return dict(self.image_processor([picture], return_tensors="pt"))

    @abstractmethod
    def vectors(self, inputs: Sequence[Any]) -> Any:
        """Vectors of pictures whose inputs have equal shapes."""

    def _batch(self, inputs: Sequence[Inputs]) -> dict[str, Any]:
        """Inputs of several pictures as one batch on the model's device."""
        names = [name for name, value in inputs[0].items() if isinstance(value, Tensor)]
        return {name: self._to_device(torch.cat([each[name] for each in inputs])) for name in names}

    def _to_device(self, value: Tensor) -> Tensor:
        return value.to(self.model.device, self.model.dtype if value.is_floating_point() else None)


class _TwoTowerEncoder(_Encoder):
    """CLIP, SigLIP and similar models: the embedding that is compared with texts."""

    pooling = "image_embeds"

    def __init__(self, model: Any, image_processor: Any) -> None:
        self.model, self.image_processor = model, image_processor

    def vectors(self, inputs: Sequence[Inputs]) -> Any:
        output = self.model.get_image_features(**self._batch(inputs))
        return output if isinstance(output, Tensor) else output.pooler_output


class _VisionEncoder(_Encoder):
    """A vision model without a text tower."""

    def __init__(self, model: Any, image_processor: Any, *, has_pooler: bool) -> None:
        self.model, self.image_processor, self._has_pooler = model, image_processor, has_pooler
        self._has_class_token = any("class_embedding" in name or "cls_token" in name for name, _ in model.named_parameters())

    def vectors(self, inputs: Sequence[Inputs]) -> Any:
        output = self.model(**self._batch(inputs), return_dict=True)
        pooled = output.get("pooler_output")
        if pooled is not None and self._has_pooler:
            self.pooling = "pooler_output"
            return pooled.flatten(1)
        tokens = output.last_hidden_state
        if tokens.ndim == 4:  # feature map of a convolutional model: batch, channels, rows, columns
            tokens = tokens.flatten(2).transpose(1, 2)
        self.pooling = "class token" if self._has_class_token else "mean of tokens"
        return tokens[:, 0] if self._has_class_token else tokens.float().mean(dim=1)


class _VLMEncoder(_Encoder):
    """The encoder of a VLM of the families table, with the VLM's own tiling of pictures."""

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
        pixels = {name: self._to_device(value) for name, value in self._reader.join(inputs).items()}
        patches = encode_pictures(self.model, pixels, len(inputs), patches=True).patches
        return None if patches is None else patches.float().mean(dim=1)


def _load_encoder(name: str, device: str, dtype: DType) -> _Encoder:
    if name.partition(":")[0] in OWN:
        own = encoder_named(name)
        return _VisionEncoder(own.tower, own.image_processor, has_pooler=True)
    with loading("vision model", name):
        model_type = str(PreTrainedConfig.get_config_dict(name)[0].get("model_type"))
    if model_type.removeprefix(EXPORTED) in FAMILIES:
        return _VLMEncoder(*load_vlm(name, device, dtype))
    with loading("vision model", name):
        image_processor = _image_processor(name)
        model, info = AutoModel.from_pretrained(name, dtype=getattr(torch, dtype), output_loading_info=True, **SAFE_WEIGHTS)
    two_towers = isinstance(model, nn.Module) and callable(getattr(model, "get_image_features", None))
    missing = sorted(info["missing_keys"])
    # Checkpoints without a pooler are common (DINO, MAE); its weights are then random, and its output is noise.
    refuse_random_weights(name, [key for key in missing if two_towers or "pooler" not in key])
    return _TwoTowerEncoder(model, image_processor) if two_towers else _VisionEncoder(model, image_processor, has_pooler=not missing)


def _image_processor(name: str) -> Any:
    try:
        return AutoImageProcessor.from_pretrained(name, backend="pil", **NO_CODE)
    except (ImportError, ValueError) as error:
        if "torchvision" not in str(error).lower():
            raise
        raise BadInput(
            f"the image processor of {name} has no Pillow backend, so it needs torchvision; install it, or use another model"
        ) from error


def _settings(value: Any) -> Any:
    """Settings without `IGNORED_SETTINGS`."""
    if isinstance(value, dict):
        return {str(name): _settings(inner) for name, inner in value.items() if name not in IGNORED_SETTINGS}
    return [_settings(inner) for inner in value] if isinstance(value, list | tuple) else value


def _same_shapes(inputs: Sequence[Any]) -> list[list[int]]:
    """Positions of pictures, grouped by the shapes of their inputs and by their number of tokens."""
    groups: dict[object, list[int]] = {}
    for index, each in enumerate(inputs):
        tensors = each.inputs if isinstance(each, ProcessedPicture) else each
        shapes = tuple((key, tuple(value.shape)) for key, value in sorted(tensors.items()) if isinstance(value, Tensor))
        groups.setdefault((shapes, each.tokens if isinstance(each, ProcessedPicture) else 0), []).append(index)
    return list(groups.values())


def _device(name: str) -> torch.device:
    try:
        target = torch.device(name)
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise BadInput(f"device {name!r} is not available ({str(error).splitlines()[0]}); give cpu, cuda or cuda:1") from error
    return target
