"""A stock vision-language model that is adapted by itself: mixed attention and 2D positions in its own `forward` and `generate`.

`Adapted` goes before the stock class of a family. All but the language model's mask and positions stays the library's, and text without
pictures runs as in the stock class, to the bit. What cannot be done right is refused with a `ValueError`. This file goes with exported
models, so it imports nothing but torch, transformers and its neighbours.
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

Given = dict[str, Any]

HELD = "adapted_text_config"
NOTE = f"held under {HELD}, since stock classes would run this model in another way: load it with trust_remote_code=True"


@dataclass(frozen=True)
class Stock:
    """Where a family keeps its language model, and what the stock forward does among a picture's tokens (as in the table of families)."""

    language_model: str
    positions: Literal["1d", "mrope"]
    attention: Literal["causal", "blocks", "prefix"]


def hold_text_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of a config.json from which stock classes cannot be built: they would run the same weights in another way."""
    return settings if HELD in settings else {**settings, "text_config": NOTE, HELD: settings["text_config"]}


def release_text_config(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same contents as the stock class has them."""
    released = dict(settings)
    if HELD in released:
        released["text_config"] = released.pop(HELD)
    return released


class AdaptedConfig:
    """Goes before a stock configuration class. `adaptation` says what is on: attention (native, mixed) and positions (native, 2d)."""

    adaptation: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def from_dict(cls, config_dict: Mapping[str, Any], **kwargs: Any) -> Any:
        return super().from_dict(release_text_config(config_dict), **kwargs)  # type: ignore[misc]

    def to_json_string(self, *args: Any, **kwargs: Any) -> str:
        settings = json.loads(super().to_json_string(*args, **kwargs))  # type: ignore[misc]
        return json.dumps(hold_text_config(settings), indent=2, sort_keys=True) + "\n"


def adapted_forward(kind: type) -> Callable[..., Any]:
    """The forward of an adapted class, with the signature of the stock class, which `generate` and others look at.

    Two keywords more. `pictures` (row, token): the number of each token's picture, -1 at text, where pixels no longer tell (`generate`
    gives it). `as_stock`: whether to run as the stock class, for callers that edit the language model's inputs themselves.
    """
    names = list(inspect.signature(kind.forward).parameters)[1:]

    @functools.wraps(kind.forward)
    def forward(self: Any, *args: Any, pictures: Tensor | None = None, as_stock: bool = False, **kwargs: Any) -> Any:
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if as_stock:
            return kind.forward(self, **given)
        given, edit = self.adapt_inputs(given, pictures)
        if edit is None:
            return kind.forward(self, **given)
        with edited(self.get_submodule(self.stock.language_model), edit):
            return kind.forward(self, **given)

    return forward


@contextmanager
def edited(module: nn.Module, edit: Callable[[Given], Given]) -> Iterator[None]:
    """Within, the module is given its keyword arguments as `edit` changes them, in this thread: a server may run the model in several."""
    thread = threading.get_ident()

    def change(module: nn.Module, args: tuple[Any, ...], kwargs: Given) -> tuple[tuple[Any, ...], Given]:
        return args, {**kwargs, **edit(kwargs)} if threading.get_ident() == thread else kwargs

    handle = module.register_forward_pre_hook(change, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


class Adapted:
    """Goes before a family's stock class for conditional generation; the subclass sets `stock` and `forward`.

    Raises `ValueError` for an attention back end that would drop the mask.
    """

    stock: ClassVar[Stock]
    config: Any

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        for name, known in (("attention", ("native", "mixed")), ("positions", ("native", "2d"))):
            if config.adaptation.get(name) not in known:
                raise ValueError(f"the configuration's adaptation is {config.adaptation}; {name} must be one of {', '.join(known)}")
        # Before the library looks for the package that such a back end needs.
        if config.text_config._attn_implementation is not None:
            refuse_dropped_masks(config.text_config._attn_implementation)
        super().__init__(config, *args, **kwargs)
        language_model = self.get_submodule(self.stock.language_model)
        if self._exchanges_rotary and not isinstance(language_model.rotary_emb, AxisRotary):
            language_model.rotary_emb = AxisRotary(language_model.rotary_emb)

    def set_attn_implementation(self, attn_implementation: str | Mapping[str, str], *args: Any, **kwargs: Any) -> Any:
        """As in the library. Raises `ValueError` for a back end that would drop the mask."""
        wanted = attn_implementation if isinstance(attn_implementation, str) else attn_implementation.get("text_config")
        if wanted is not None:
            refuse_dropped_masks(wanted)
        return super().set_attn_implementation(attn_implementation, *args, **kwargs)  # type: ignore[misc]

    @property
    def _is_mixed(self) -> bool:
        return bool(self.config.adaptation["attention"] == "mixed")

    @property
    def _exchanges_rotary(self) -> bool:
        return self.stock.positions == "1d" and bool(self.config.adaptation["positions"] == "2d")

    @property
    def _is_by_axis(self) -> bool:
        return self.stock.positions == "mrope" or self._exchanges_rotary

    def adapt_inputs(self, given: Given, pictures: Tensor | None) -> tuple[Given, Callable[[Given], Given] | None]:
        """The stock forward's keyword arguments, and the edit of the language model's; no edit where none is due.

        A mask that is prepared already (4D, or one for each kind of layer) goes through as it is.
        """
        positions = given.get("position_ids")
        if _is_prepared(given.get("attention_mask")):
            if self._is_by_axis and positions is None:
                raise ValueError(
                    "a prepared attention_mask goes with position_ids here: pass (3, row, token), or (row, token) for text alone"
                )
            return given, None
        layout = self._layout(given, pictures)
        if layout is None:
            if self._is_by_axis and positions is None and _num_cached(given) > 0:
                raise ValueError(
                    "position_ids are missing: a picture takes fewer positions than tokens, so the cache's length does not tell where its "
                    "sequence ends; pass position_ids that go on from there, or call generate, which does"
                )
            return given, None
        return self._adapt_pass(dict(given), layout, pictures is None)

    def _layout(self, given: Given, pictures: Tensor | None) -> Layout | None:
        """Where the pictures' tokens stand; None if there are none."""
        ids = given.get("input_ids")
        if ids is None:
            raise ValueError(
                "input_ids are missing: inputs_embeds do not say which tokens are a picture's; pass input_ids and pixel_values"
            )
        vision = ids == self.config.image_token_id if pictures is None else pictures != NONE
        if not bool(vision.any()):
            return None
        if _num_cached(given) > 0:
            raise ValueError(
                "pictures behind what a cache holds are not adapted to; run the conversation anew from its start, without past_key_values"
            )
        if pictures is None:
            return _layout_of(self.config, ids, given)
        sample = sample_of_rows(ids, given.get("attention_mask"))
        return Layout(sample, torch.zeros_like(sample), pictures, torch.zeros(*pictures.shape, 2, dtype=torch.long, device=ids.device))

    def _adapt_pass(self, given: Given, layout: Layout, has_cells: bool) -> tuple[Given, Callable[[Given], Given]]:
        language_model = self.get_submodule(self.stock.language_model)
        refuse_dropped_masks(language_model.config._attn_implementation)
        self._fill_token_types(given, layout)
        edits: Given = {}
        positions = given.get("position_ids")
        if self._is_by_axis:
            if positions is None and has_cells:
                positions = axis_positions(layout, two_d=True)
            elif positions is None or positions.ndim != 3:
                raise ValueError(
                    "position_ids count tokens, but pictures take positions by axis here: leave them out, or pass (3, row, token)"
                )
            if self._exchanges_rotary:
                # The stock forward would take positions that are not 0, 1, 2 ... for packed rows.
                edits["position_ids"], given["position_ids"] = positions, None
            else:
                given["position_ids"] = positions
        elif positions is not None and given.get("attention_mask") is None and bool((positions.diff(dim=-1) != 1).any()):
            raise ValueError(
                "position_ids start anew within a row, as in packed rows; pass rows of one sample, or a prepared attention_mask"
            )
        masked = self._is_mixed or (self._exchanges_rotary and self.stock.attention == "causal")

        def edit(kwargs: Given) -> Given:
            if not masked:
                return edits
            embeddings, cache = kwargs["inputs_embeds"], given.get("past_key_values")
            kind = embeddings.device.type
            dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embeddings.dtype
            return {**edits, "attention_mask": language_mask(layout, self._is_mixed, language_model.config, dtype, cache)}

        return given, edit

    def _fill_token_types(self, given: Given, layout: Layout) -> None:
        """Without token types these families attend in yet another way, and say nothing."""
        if given.get("token_type_ids") is not None:
            return
        if self.stock.attention == "blocks":
            given["token_type_ids"] = layout.vision.long()
        elif self.stock.attention == "prefix" and not self._is_mixed:
            raise ValueError("token_type_ids are missing: 0 at the prompt, 1 at the answer; the processor gives them")

    # Generation: where pictures stand is found before the library encodes them, and then goes along with the other inputs.

    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: Given) -> Tensor:
        if not self._is_by_axis:
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)  # type: ignore[misc]
        if _num_cached(model_kwargs) > 0:
            raise ValueError(
                "generate cannot go on from a cache without position_ids here: pass (3, row, token) that go on from its end, or start anew "
                "without past_key_values"
            )
        layout = self._prompt_layout(inputs_tensor, model_kwargs)
        if layout is None:
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)  # type: ignore[misc]
        axes = axis_positions(layout, two_d=True)
        # M-RoPE's generation keeps plain positions in a row before the axes.
        return axes if self._exchanges_rotary else torch.cat([axis_positions(layout, two_d=False)[:1], axes])

    def _prompt_layout(self, inputs_tensor: Tensor, model_kwargs: Given) -> Layout | None:
        ids = model_kwargs.get("input_ids", inputs_tensor)
        if ids.ndim != 2:
            raise ValueError("generate needs input_ids here: inputs_embeds do not say which tokens are a picture's")
        if not bool((ids == self.config.image_token_id).any()):
            return None
        return _layout_of(self.config, ids, model_kwargs)

    def _maybe_prepare_encoder_kwargs_for_generation(
        self, inputs_tensor: Tensor, model_kwargs: Given, model_input_name: str | None, generation_config: Any
    ) -> Given:
        layout = None if _num_cached(model_kwargs) > 0 else self._prompt_layout(inputs_tensor, model_kwargs)
        if layout is not None and generation_config.prefill_chunk_size is not None:
            raise ValueError("prefill_chunk_size would cut pictures apart; leave it out")
        model_kwargs = super()._maybe_prepare_encoder_kwargs_for_generation(  # type: ignore[misc]
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        return model_kwargs if layout is None else {**model_kwargs, "pictures": layout.picture}

    def _expand_inputs_for_generation(
        self, expand_size: int = 1, is_encoder_decoder: bool = False, input_ids: Tensor | None = None, **model_kwargs: Any
    ) -> tuple[Tensor, Given]:
        if expand_size > 1 and model_kwargs.get("pictures") is not None:
            encoded = (model_kwargs.get("mm_encoder_outputs") or {}).get("image")
            ends = {0, *accumulate(len(part) for part in (encoded.pooler_output if encoded is not None else ()))}
            # The library copies whole entries of what it has encoded: one that runs into the next row would leave copies of a row unlike.
            if not set(accumulate((model_kwargs["pictures"] != NONE).sum(dim=1).tolist())) <= ends:
                raise ValueError(
                    "pixel_values hold pictures of several rows in one, so they cannot be copied for several beams or returned sequences; "
                    "give each row of input_ids its own row of pixel_values, as the processor does"
                )
        return super()._expand_inputs_for_generation(expand_size, is_encoder_decoder, input_ids, **model_kwargs)  # type: ignore[misc]

    def prepare_inputs_for_generation(self, input_ids: Tensor, *args: Any, **kwargs: Any) -> Given:
        pictures, padding = kwargs.pop("pictures", None), kwargs.get("attention_mask")
        inputs: Given = super().prepare_inputs_for_generation(input_ids, *args, **kwargs)  # type: ignore[misc]
        if pictures is None:
            return inputs
        ids = inputs["input_ids"]
        inputs["pictures"] = pictures[:, -ids.shape[1] :].to(ids.device)
        if bool((inputs["pictures"] != NONE).any()):
            # For a cache of fixed length the library has made a causal mask by now; the forward makes its own.
            inputs["attention_mask"] = None if padding is None else padding.to(ids.device)
        return inputs

    def _update_model_kwargs_for_generation(
        self, outputs: Any, model_kwargs: Given, is_encoder_decoder: bool = False, num_new_tokens: int = 1
    ) -> Given:
        updated: Given = super()._update_model_kwargs_for_generation(  # type: ignore[misc]
            outputs, model_kwargs, is_encoder_decoder, num_new_tokens
        )
        if updated.get("pictures") is not None:
            updated["pictures"] = torch.nn.functional.pad(updated["pictures"], (0, num_new_tokens), value=NONE)
            if updated["position_ids"].ndim == 3:
                updated["position_ids"] = _continued(updated["position_ids"], num_new_tokens)
        return updated


def _continued(positions: Tensor, num_new: int) -> Tensor:
    """(axes, row, token) positions whose last ones go on behind the largest of all axes, also where a prompt ends with a picture."""
    known, new = positions[..., :-num_new], positions[..., -num_new:].clone()
    start = known[-3:].amax(dim=(0, 2)) + 1
    new[-3:] = start[None, :, None] + torch.arange(num_new, device=positions.device)
    return torch.cat([known, new], dim=-1)


def _layout_of(config: Any, ids: Tensor, given: Given) -> Layout:
    if given.get("pixel_values") is None:
        raise ValueError(
            "input_ids hold image tokens, but pixel_values are missing; pass them (features encoded beforehand do not say where a picture "
            "ends), or a prepared attention_mask with position_ids"
        )
    grids = picture_grids(config, {**given, "input_ids": ids})
    return layout_of(ids, config.image_token_id, grids, given.get("attention_mask"))


def _is_prepared(mask: Any) -> bool:
    """Whether an attention mask is more than a mark of padding: a mask for each kind of layer, a `BlockMask`, or (row, 1, query, key)."""
    return mask is not None and (not isinstance(mask, Tensor) or mask.ndim == 4)


def _num_cached(given: Mapping[str, Any]) -> int:
    cache = given.get("past_key_values")
    return 0 if cache is None else int(cache.get_seq_length())
