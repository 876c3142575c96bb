"""A stock vision-language model with mixed attention and 2D positions in its own `forward` and `generate`.

`Adapted` precedes a family's stock class among the base classes. Only the mask and the positions of the language model change; text
without pictures runs bitwise as in the stock class (where that attends to prompts in both directions, as its answers do under mixed
attention). Unsupported inputs raise `ValueError`. This file is copied beside exported models, so it imports only torch, transformers and
its neighbours.
"""

from __future__ import annotations

import functools
import inspect
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from .attention import language_mask, refuse_dropped_masks
from .grids import picture_grids
from .layout import NONE, Layout, layout_of, sample_of_rows
from .positions import AxisRotary, axis_positions

Inputs = dict[str, Any]

TEXT_CONFIG_KEY = "adapted_text_config"
NOTE = f"held under {TEXT_CONFIG_KEY}, since stock classes would run this model in another way: load it with trust_remote_code=True"


@dataclass(frozen=True)
class Stock:
    """Module path of a family's language model, and the stock forward's positions and attention on a picture's tokens (see `Family`)."""

    language_model: str
    positions: Literal["1d", "mrope"]
    attention: Literal["causal", "blocks", "prefix"]


def hold_text_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json's contents with `text_config` under another key, so that stock classes, which would run the weights unadapted, fail."""
    return settings if TEXT_CONFIG_KEY in settings else {**settings, "text_config": NOTE, TEXT_CONFIG_KEY: settings["text_config"]}


def release_text_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The contents with `text_config` under the stock class's key; the inverse of `hold_text_config`."""
    released = dict(settings)
    if TEXT_CONFIG_KEY in released:
        released["text_config"] = released.pop(TEXT_CONFIG_KEY)
    return released


class AdaptedConfig:
    """Base class before a stock configuration. `adaptation` holds attention ("native", "mixed") and positions ("native", "2d")."""

    adaptation: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(release_text_config(config_dict), **kwargs)  # type: ignore[misc]

    def to_json_string(self, *args: Any, **kwargs: Any) -> str:
        settings = json.loads(super().to_json_string(*args, **kwargs))  # type: ignore[misc]
        return json.dumps(hold_text_config(settings), indent=2, sort_keys=True) + "\n"


def adapted_forward(kind: type) -> Callable[..., Any]:
    """The forward of an adapted class, with the stock class's signature, which `generate` and others inspect.

    It has two more keywords. `pictures` (row, token): the number of each token's picture, -1 at text, for calls without pixels (`generate`
    passes it). `as_stock`: whether to run as the stock class, for callers that edit the language model's inputs themselves.
    """
    names = list(inspect.signature(kind.forward).parameters)[1:]

    @functools.wraps(kind.forward)
    def forward(self: Any, *args: Any, pictures: Tensor | None = None, as_stock: bool = False, **kwargs: Any) -> Any:
        inputs = {**dict(zip(names, args, strict=False)), **kwargs}
        if as_stock:
            return kind.forward(self, **inputs)
        inputs, edit = self.adapt_inputs(inputs, pictures)
        if edit is None:
            return kind.forward(self, **inputs)
        with edited(self.get_submodule(self.stock.language_model), edit):
            return kind.forward(self, **inputs)

    return forward


@contextmanager
def edited(module: nn.Module, edit: Callable[[Inputs], Inputs]) -> Iterator[None]:
    """Within the context, `edit(kwargs)` updates the module's keyword arguments; in this thread only, since a server may use several."""
    thread = threading.get_ident()

    def change(module: nn.Module, args: tuple[Any, ...], kwargs: Inputs) -> tuple[tuple[Any, ...], Inputs]:
        return args, {**kwargs, **edit(kwargs)} if threading.get_ident() == thread else kwargs

    handle = module.register_forward_pre_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class Adapted:
    """Base class before a family's stock model class; the subclass sets `stock` and `forward`.

    Raises `ValueError` for an unknown adaptation, and for an attention back end that would drop the mask.
    """

    stock: ClassVar[Stock]
    config: Any

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        for name, values in (("attention", ("native", "mixed")), ("positions", ("native", "2d"))):
            if config.adaptation.get(name) not in values:
                raise ValueError(f"the configuration's adaptation is {config.adaptation}; {name} must be one of {', '.join(values)}")
        # First, since the library would fail on the package that such a back end needs.
        if config.text_config._attn_implementation is not None:
            refuse_dropped_masks(config.text_config._attn_implementation)
        super().__init__(config, *args, **kwargs)
        language_model = self.get_submodule(self.stock.language_model)
        if self._exchanges_rotary and not isinstance(language_model.rotary_emb, AxisRotary):
            language_model.rotary_emb = AxisRotary(language_model.rotary_emb)

    def set_attn_implementation(self, attn_implementation: str | Mapping[str, str], *args: Any, **kwargs: Any) -> Any:
        """As in the library. Raises `ValueError` for a back end that would drop the mask."""
        implementation = attn_implementation if isinstance(attn_implementation, str) else attn_implementation.get("text_config")
        if implementation is not None:
            refuse_dropped_masks(implementation)
        return super().set_attn_implementation(attn_implementation, *args, **kwargs)  # type: ignore[misc]

    @property
    def _is_mixed(self) -> bool:
        return bool(self.config.adaptation["attention"] == "mixed")

    @property
    def _makes_text_causal(self) -> bool:
        """Whether text without pictures must be typed as an answer, to be causal as it is in rows with pictures."""
        return self._is_mixed and self.stock.attention == "prefix"

    @property
    def _exchanges_rotary(self) -> bool:
        return self.stock.positions == "1d" and bool(self.config.adaptation["positions"] == "2d")

    @property
    def _is_by_axis(self) -> bool:
        return self.stock.positions == "mrope" or self._exchanges_rotary

    def adapt_inputs(self, inputs: Inputs, pictures: Tensor | None) -> tuple[Inputs, Callable[[Inputs], Inputs] | None]:
        """The stock forward's keyword arguments, and the edit of the language model's; None where no edit is needed.

        A prepared mask (4D, or one for each kind of layer) is passed on unchanged.
        """
        positions = inputs.get("position_ids")
        if _is_prepared(inputs.get("attention_mask")):
            if self._is_by_axis and positions is None:
                raise ValueError("a prepared attention_mask needs position_ids here: pass (3, row, token), or (row, token) for text alone")
            return inputs, None
        layout = self._layout(inputs, pictures)
        if layout is None:
            if self._is_by_axis and positions is None and _num_cached(inputs) > 0:
                raise ValueError(
                    "position_ids are missing: a picture takes fewer positions than tokens, so the length of the cache "
                    "is not the next position; pass position_ids that continue the sequence, or call generate, which computes them"
                )
            if self._makes_text_causal:
                inputs["token_type_ids"] = torch.ones_like(inputs["input_ids"])
            return inputs, None
        return self._adapt_pass(dict(inputs), layout, pictures is None)

    def _layout(self, inputs: Inputs, pictures: Tensor | None) -> Layout | None:
        """The layout of the batch; None without pictures."""
        ids = inputs.get("input_ids")
        if ids is None:
            raise ValueError(
                "input_ids are missing: inputs_embeds do not show which tokens are a picture's; pass input_ids and pixel_values"
            )
        vision = ids == self.config.image_token_id if pictures is None else pictures != NONE
        if not bool(vision.any()):
            return None
        if _num_cached(inputs) > 0:
            raise ValueError(
                "new pictures after cached tokens are not supported; run the whole conversation again, without past_key_values"
            )
        if pictures is None:
            return _layout_of(self.config, ids, inputs)
        sample = sample_of_rows(ids, inputs.get("attention_mask"))
        return Layout(sample, torch.zeros_like(sample), pictures, torch.zeros(*pictures.shape, 2, dtype=torch.long, device=ids.device))

    def _adapt_pass(self, inputs: Inputs, layout: Layout, has_cells: bool) -> tuple[Inputs, Callable[[Inputs], Inputs]]:
        language_model = self.get_submodule(self.stock.language_model)
        refuse_dropped_masks(language_model.config._attn_implementation)
        self._fill_token_types(inputs, layout)
        edits: Inputs = {}
        positions = inputs.get("position_ids")
        if self._is_by_axis:
            if positions is None and has_cells:
                positions = axis_positions(layout, two_d=True)
            elif positions is None or positions.ndim != 3:
                raise ValueError(
                    "position_ids count tokens, but pictures take positions by axis here: leave them out, or pass (3, row, token)"
                )
            if self._exchanges_rotary:
                # The stock forward would take positions other than 0, 1, 2 ... for packed rows.
                edits["position_ids"], inputs["position_ids"] = positions, None
            else:
                inputs["position_ids"] = positions
        elif positions is not None and inputs.get("attention_mask") is None and bool((positions.diff(dim=-1) != 1).any()):
            raise ValueError("position_ids restart within a row, as in packed rows; pass rows of one sample, or a prepared attention_mask")
        masked = self._is_mixed or (self._exchanges_rotary and self.stock.attention == "causal")

        def edit(kwargs: Inputs) -> Inputs:
            if not masked:
                return edits
            embeddings, cache = kwargs["inputs_embeds"], inputs.get("past_key_values")
            kind = embeddings.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embeddings.dtype
            return {**edits, "attention_mask": language_mask(layout, self._is_mixed, language_model.config, dtype, cache)}

        return inputs, edit

    def _fill_token_types(self, inputs: Inputs, layout: Layout) -> None:
        """Adds missing token types, without which these families silently change their attention."""
        if inputs.get("token_type_ids") is not None:
            return
        if self.stock.attention == "blocks":
            inputs["token_type_ids"] = layout.vision.long()
        elif self.stock.attention == "prefix" and not self._is_mixed:
            raise ValueError("token_type_ids are missing: 0 at the prompt, 1 at the answer; the processor gives them")

    # Generation: the layout is computed before the library encodes the pictures, and is then passed on with the other inputs.

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: Inputs) -> Tensor:
        if not self._is_by_axis:
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)  # type: ignore[misc]
        if _num_cached(model_kwargs) > 0:
            raise ValueError(
                "generate cannot continue a cache without position_ids here: pass (3, row, token) that start at its end, or run the whole "
                "sequence without past_key_values"
            )
        layout = self._prompt_layout(inputs_tensor, model_kwargs)
        if layout is None:
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)  # type: ignore[misc]
        axes = axis_positions(layout, two_d=True)
        # M-RoPE's generation has 1D positions in front of the three axes.
        return axes if self._exchanges_rotary else torch.cat([axis_positions(layout, two_d=False)[:1], axes])

    def _prompt_layout(self, inputs_tensor: Tensor, model_kwargs: Inputs) -> Layout | None:
        ids = model_kwargs.get("input_ids", inputs_tensor)
        if ids.ndim != 2:
            raise ValueError("generate needs input_ids here: inputs_embeds do not show which tokens are a picture's; pass input_ids")
        if not bool((ids == self.config.image_token_id).any()):
            return None
        return _layout_of(self.config, ids, model_kwargs)

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: Inputs, model_input_name: str | None, generation_config: Any
    ) -> Inputs:
        layout = None if _num_cached(model_kwargs) > 0 else self._prompt_layout(inputs_tensor, model_kwargs)
        if layout is not None and generation_config.prefill_chunk_size is not None:
            raise ValueError("prefill_chunk_size would split pictures; leave it out")
        model_kwargs = super()._maybe_prepare_encoder_kwargs_for_generation(  # type: ignore[misc]
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        return model_kwargs if layout is None else {**model_kwargs, "pictures": layout.picture}

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor, Inputs]:
        if expand_size > 1 and model_kwargs.get("pictures") is not None:
            encoded = (model_kwargs.get("mm_encoder_outputs") or {}).get("image")
            ends = {0, *accumulate(len(entry) for entry in (encoded.pooler_output if encoded is not None else ()))}
            # The library copies whole entries of the encoder's outputs; an entry across two rows would make the copies of a row differ.
            if not set(accumulate((model_kwargs["pictures"] != NONE).sum(dim=1).tolist())) <= ends:
                raise ValueError(
                    "a row of pixel_values has pictures of several rows, so it cannot be copied for several beams or returned sequences; "
                    "give each row of input_ids its own row of pixel_values, as the processor does"
                )
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)  # type: ignore[misc]

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Inputs:
        pictures, padding = kwargs.pop("pictures", None), kwargs.get("attention_mask")
        if pictures is None and self._makes_text_causal and kwargs.get("token_type_ids") is not None:
            # For a cache of fixed length the library makes the mask here.
            kwargs["token_type_ids"] = torch.ones_like(kwargs["token_type_ids"])
        inputs: Inputs = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc]
        if pictures is None:
            return inputs
        ids = inputs["input_ids"]
        inputs["pictures"] = pictures[:, -ids.shape[1] :].to(ids.device)
        if bool((inputs["pictures"] != NONE).any()):
            # For a cache of fixed length the library has already made a causal mask here; the forward makes its own.
            inputs["attention_mask"] = None if padding is None else padding.to(ids.device)
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: Inputs, is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> Inputs:
        updated: Inputs = super()._update_model_kwargs_for_generation(  # type: ignore[misc]
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        if updated.get("pictures") is not None:
            updated["pictures"] = torch.nn.functional.pad(updated["pictures"], (0, num_new_tokens), value=NONE)
            if updated["position_ids"].ndim == 3:
                updated["position_ids"] = _continued(updated["position_ids"], num_new_tokens)
        return updated


def _continued(positions: Tensor, num_new: int) -> Tensor:
    """(axes, row, token) positions; the last `num_new` start after the maximum over all axes, also where a prompt ends with a picture."""
    previous, new = positions[..., :-num_new], positions[..., -num_new:].clone()
    start = previous[-3:].amax(dim=(0, 2)) + 1
    new[-3:] = start[None, :, None] + torch.arange(num_new, device=positions.device)
    return torch.cat([previous, new], dim=-1)


def _layout_of(config: Any, ids: Tensor, inputs: Inputs) -> Layout:
    if inputs.get("pixel_values") is None:
        raise ValueError(
            "input_ids hold image tokens, but pixel_values are missing; pass them (encoded features do not show where a picture ends), "
            "or a prepared attention_mask with position_ids"
        )
    grids = picture_grids(config, {**inputs, "input_ids": ids})
    return layout_of(ids, config.image_token_id, grids, inputs.get("attention_mask"))


def _is_prepared(mask: Any) -> bool:
    """Whether an attention mask is more than a padding mask: a mask for each kind of layer, a `BlockMask`, or (row, 1, query, key)."""
    return mask is not None and (not isinstance(mask, Tensor) or mask.ndim == 4)


def _num_cached(inputs: Mapping[str, Any]) -> int:
    cache = inputs.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())
