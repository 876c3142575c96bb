"""One pass through a VLM: its own Hugging Face forward, with the inputs of its language model edited.

Everything before the language model (embedding, encoder, connector, merging) and after it stays the library's. A temporary hook on
the language model sets the mask embedding, the prepared attention mask and the positions; one on the language-model head selects the
positions at which logits are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from theodolite.models.encoder_output import EncoderOutput, replaced
from theodolite.models.exported.attention import language_mask, layer_kinds, refuse_dropped_masks
from theodolite.models.exported.layout import Layout
from theodolite.models.exported.positions import AxisRotary, axis_positions, refuse_interleaved
from theodolite.models.families import EXPORTED, Family, family_of, image_token_id
from theodolite.models.pass_inputs import PassInputs
from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class Adaptation:
    """Changes to a stock model: attention among vision tokens, and their positions. Both "native": the stock model."""

    attention: Literal["native", "mixed"] = "native"
    positions: Literal["native", "2d"] = "native"

    @property
    def is_stock(self) -> bool:
        return self == Adaptation()


STOCK = Adaptation()


# From the head's forward and the hidden states at the wanted positions (position, dim).
AtHead = Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class ForwardOutput:
    """The language model's last hidden states, and logits at the wanted positions (no rows if none are wanted)."""

    hidden: Float[Tensor, "row token dim"]
    logits: Float[Tensor, "wanted vocabulary"]


def base_model(model: nn.Module) -> Any:
    """The Hugging Face model itself, without its peft wrapper if there is one (adapters stay in)."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def adaptation_of(config: Any) -> Adaptation:
    """The adaptation that a model's configuration names; the stock one if it names none."""
    return Adaptation(**(getattr(config, "adaptation", None) or {}))


def adapt(model: nn.Module, adaptation: Adaptation) -> None:
    """Writes the adaptation into the model's configuration, and replaces its rotary module where 2D positions need it.

    The new module gives bitwise the same angles for 1D positions. Raises `BadInput` if the attention back end would drop the mask, or
    the rotary module interleaves its frequencies.
    """
    base = base_model(model)
    family = family_of(base.config)
    language_model = base.get_submodule(family.language_model)
    exchanges = adaptation.positions == "2d" and family.positions == "1d"
    with _raised_as_bad_input():
        if adaptation.attention == "mixed" or exchanges:
            refuse_dropped_masks(language_model.config._attn_implementation)
        if exchanges and not isinstance(language_model.rotary_emb, AxisRotary):
            stock = language_model.rotary_emb
            # One module for several kinds of layers (Gemma 3), also where all layers are of one kind.
            by_kind = "layer_type" in signature(stock.forward).parameters
            extra = {"layer_type": layer_kinds(language_model.config)[0]} if by_kind else {}
            device = next(stock.buffers()).device  # the weights may be on the meta device
            cos, _ = stock(torch.zeros(1, 2, 1, device=device), torch.arange(2, device=device)[None], **extra)
            refuse_interleaved(cos, type(stock).__name__)
            language_model.rotary_emb = AxisRotary(stock)
    base.config.adaptation = {"attention": adaptation.attention, "positions": adaptation.positions}


@contextmanager
def _raised_as_bad_input() -> Iterator[None]:
    """Raises a `ValueError` of the files in `exported`, which cannot import `BadInput`, as `BadInput`."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error


def run_forward(
    model: nn.Module,
    inputs: PassInputs,
    adaptation: Adaptation = STOCK,
    mask_embedding: nn.Module | None = None,
    encoded: EncoderOutput | None = None,
    outputs: Mapping[str, Any] | None = None,
    at_head: AtHead | None = None,
) -> ForwardOutput:
    """One forward pass. `mask_embedding(embeddings, masked)` sets the learned embedding at masked tokens; `encoded` reuses the encoder's
    output; `outputs` are the connector's outputs (`VisionFeatures.outputs`), used instead of the pixels;
    `at_head(forward, states)` is computed in place of the logits from the hidden states at the wanted positions.

    Raises `BadInput` for packed rows of a family whose stock attention is over the whole prefix, without mixed attention.
    """
    base = base_model(model)
    family = family_of(base.config)
    language_model = base.get_submodule(family.language_model)
    hidden: list[Tensor] = []

    def edit_inputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        passed = {name: value for name, value in kwargs.items() if name not in inputs.pixels}  # the stock forward hands on what it is given
        return args, {**passed, **_edits(kwargs, inputs, family, language_model, adaptation, mask_embedding)}

    def record_hidden(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        hidden.append(output.last_hidden_state)

    def select_wanted(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wanted = inputs.wanted if inputs.wanted is not None else torch.zeros(0, dtype=torch.long, device=args[0].device)
        return (args[0].flatten(0, 1)[wanted][None], *args[1:])

    with ExitStack() as stack:
        if encoded is not None and inputs.pixels:
            stack.enter_context(encoded.around(base, family))
        for handle in (
            language_model.register_forward_pre_hook(edit_inputs, with_kwargs=True),
            language_model.register_forward_hook(record_hidden),
            base.get_submodule(family.lm_head).register_forward_pre_hook(select_wanted),
        ):
            stack.callback(RemovableHandle.remove, handle)
        if at_head is not None:
            head = base.get_submodule(family.lm_head)
            stack.enter_context(replaced(head, "forward", partial(_at_head, at_head, head.forward)))
        arguments = _arguments(inputs if outputs is None else replace(inputs, pixels={}), family, adaptation)
        if outputs is not None:
            arguments["mm_encoder_outputs"] = outputs
        if hasattr(language_model, "_deepstack_process") and inputs.layout.known is not None:
            stack.enter_context(replaced(language_model, "_deepstack_process", partial(_add_at, inputs.layout.vision_index)))
        if inputs.layout.known is not None and hasattr(base.model, "get_placeholder_mask"):
            stack.enter_context(replaced(base.model, "get_placeholder_mask", partial(_placeholder_mask, base, inputs.layout)))
        if base.config.model_type.startswith(EXPORTED):
            arguments["as_stock"] = True  # else an exported model would adapt its inputs a second time
        logits = base(**arguments, use_cache=False).logits[0]
    return ForwardOutput(hidden[0], logits)


def _add_at(index: Tensor, hidden: Tensor, mask: Tensor, features: Tensor) -> Tensor:
    """Qwen3-VL's deepstack sum at flat positions: with the stock method's mask the host would wait for their number, in every layer."""
    if not len(index):  # a dummy picture's tokens are none of the layout's vision tokens
        index = mask.flatten().nonzero()[:, 0]
    return hidden.flatten(0, 1).index_add(0, index.to(hidden.device), features.to(hidden.device, hidden.dtype)).view_as(hidden)


def _placeholder_mask(base: Any, layout: Layout, input_ids: Tensor, *, image_features: Any = None, **stock: Any) -> Any:
    """The stock `get_placeholder_mask`: whether a token is a picture's (row, token, 1), with None beside it where there is one for videos.

    It checks the number of features against what the host knows of the layout: the stock method waits for the device to count tokens.
    Raises `ValueError` if they differ.
    """
    expected = sum(layout.facts.sizes)
    num_features = None if image_features is None else image_features.numel() // image_features.shape[-1]
    if expected and num_features not in (None, expected):  # a dummy picture's tokens are none of the layout's
        raise ValueError(f"the pictures have {num_features} features, but the text has places for {expected}")
    mask = (input_ids == image_token_id(base.config))[..., None]
    both = "video_features" in signature(type(base.model).get_placeholder_mask).parameters
    return (mask, None) if both else mask


def _at_head(at_head: AtHead, forward: Callable[[Tensor], Tensor], states: Tensor) -> Tensor:
    """What `at_head` gives, as (1, 1, value): the stock forward takes it for logits."""
    return at_head(forward, states[0]).view(1, 1, -1)


def _arguments(inputs: PassInputs, family: Family, adaptation: Adaptation) -> dict[str, Any]:
    """The keyword arguments of the stock forward. Unpadded rows go without a mask, so that the causal kernel is chosen.

    Under mixed attention text is causal, also where a row has no pictures and takes no prepared mask: a family whose stock attention is
    over the whole prefix then gets no prompt. Else a sample's attention would change with the pictures of other samples in its batch.
    """
    arguments: dict[str, Any] = {"input_ids": inputs.input_ids, **inputs.pixels}
    if inputs.layout.facts.is_padded:
        arguments["attention_mask"] = inputs.layout.real.long()
    if family.token_types is not None:
        vision = inputs.layout.vision
        answer = torch.zeros_like(vision) if inputs.suffix is None else inputs.suffix
        causal = torch.ones_like(vision) if adaptation.attention == "mixed" else answer
        arguments[family.token_types] = (vision if family.typed_tokens == "picture" else causal).long()
    if family.positions == "mrope":
        arguments["position_ids"] = axis_positions(inputs.layout, two_d=True)
    return arguments


def _edits(
    kwargs: Mapping[str, Any],
    inputs: PassInputs,
    family: Family,
    language_model: nn.Module,
    adaptation: Adaptation,
    mask_embedding: nn.Module | None,
) -> dict[str, Any]:
    """The language model's keyword arguments that replace those of the stock forward."""
    edits: dict[str, Any] = {}
    embeddings = kwargs["inputs_embeds"]
    if mask_embedding is not None and inputs.masked is not None:
        edits["inputs_embeds"] = mask_embedding(embeddings, inputs.masked)
        if kwargs.get("deepstack_visual_embeds") is not None:
            masked = inputs.masked.flatten()[inputs.layout.vision_index][:, None]
            # These bypass the input embeddings and would leak a masked token's content into the first layers.
            if len(masked):  # else a dummy picture's, whose tokens are none of the layout's vision tokens
                edits["deepstack_visual_embeds"] = [features.masked_fill(masked, 0.0) for features in kwargs["deepstack_visual_embeds"]]
    if not inputs.layout.has_pictures and not inputs.layout.is_packed:
        return edits  # text alone: bitwise the stock forward, which is causal here (`_arguments`)
    mixed, two_d, packed = adaptation.attention == "mixed", adaptation.positions == "2d", inputs.layout.is_packed
    if packed and not mixed and family.attention == "prefix":
        raise BadInput(
            f"{family.name} attends to its whole prompt in both directions, so packed samples would see each other; use mixed attention"
        )
    if mixed or packed or (two_d and family.attention == "causal"):
        # Positions other than 0, 1, 2 ... need a prepared mask: without one the stock forward takes them for packed rows.
        edits["attention_mask"] = _mask(inputs.layout, mixed or family.attention == "blocks", language_model, embeddings)
    if family.positions == "1d" and (packed or two_d):
        axes = axis_positions(inputs.layout, two_d=two_d)
        edits["position_ids"] = axes if two_d else axes[0]
    return edits


def _mask(layout: Layout, mixed: bool, language_model: nn.Module, embeddings: Tensor) -> Any:
    """The prepared mask, one for each kind of layer where there are several, in the precision of the attention."""
    kind = embeddings.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embeddings.dtype
    with _raised_as_bad_input():
        return language_mask(layout, mixed, language_model.config, dtype)
