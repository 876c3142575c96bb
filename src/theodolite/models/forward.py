"""One pass through a VLM: its own Hugging Face forward, with what its language model is given edited on the way.

Everything before the language model (embedding, encoder, connector, merging) and after it stays the library's. A temporary hook on
the language model puts in the mask embedding, the prepared attention mask and the positions; one on the head of the vocabulary keeps the
positions that are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from theodolite.models.exported.attention import language_mask, layer_kinds, refuse_dropped_masks
from theodolite.models.exported.layout import Layout
from theodolite.models.exported.positions import AxisRotary, axis_positions, refuse_interleaved
from theodolite.models.families import EXPORTED, Family, family_of
from theodolite.models.pass_inputs import PassInputs
from theodolite.records.errors import BadInput


@dataclass(frozen=True)
class Adaptation:
    """What is changed in a stock model: attention among vision tokens, and their positions. Both off: the stock model."""

    attention: Literal["native", "mixed"] = "native"
    positions: Literal["native", "2d"] = "native"

    @property
    def is_stock(self) -> bool:
        return self == Adaptation()


STOCK = Adaptation()


@dataclass(frozen=True, eq=False)
class ForwardOutput:
    """The language model's last hidden states, and logits at the wanted places (none: no rows)."""

    hidden: Float[Tensor, "row token dim"]
    logits: Float[Tensor, "wanted vocabulary"]


@dataclass
class EncoderOutput:
    """What a frozen encoder gave for a batch's pictures, so that several passes over them run it once.

    An encoder that holds a trained parameter is run every time.
    """

    output: Any = field(default=None, repr=False)

    @contextmanager
    def around(self, encoder: nn.Module) -> Iterator[None]:
        """Within, the encoder is run if it has not been yet, and its output taken from here otherwise."""
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            yield
            return
        own, before = encoder.forward, vars(encoder).get("forward")

        def remembering(*args: Any, **kwargs: Any) -> Any:
            if self.output is None:
                with torch.no_grad():
                    self.output = own(*args, **kwargs)
            return self.output

        # A hook can change a module's output but not spare its forward, so the forward itself is stood in for, for this pass.
        encoder.forward = remembering
        try:
            yield
        finally:
            del encoder.forward
            if before is not None:  # such as that of `remembered.remembered`
                encoder.forward = before


def base_model(model: nn.Module) -> Any:
    """The Hugging Face model itself, out of a peft wrapper if there is one (adapters stay in)."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def adaptation_of(config: Any) -> Adaptation:
    """How a saved model was adapted, from its configuration."""
    return Adaptation(**(getattr(config, "adaptation", None) or {}))


def adapt(model: nn.Module, adaptation: Adaptation) -> None:
    """Writes the adaptation into the model's configuration, and exchanges its rotary module where 2D positions need it.

    The exchanged module gives the same angles for ordinary positions, to the bit. Raises `BadInput` if the attention back end would drop
    the mask, or the rotary module is of another kind.
    """
    base = base_model(model)
    family = family_of(base.config)
    language_model = base.get_submodule(family.language_model)
    exchanges = adaptation.positions == "2d" and family.positions == "1d"
    with _said_as_bad_input():
        if adaptation.attention == "mixed" or exchanges:
            refuse_dropped_masks(language_model.config._attn_implementation)
        if exchanges and not isinstance(language_model.rotary_emb, AxisRotary):
            stock, kinds = language_model.rotary_emb, layer_kinds(language_model.config)
            extra = {"layer_type": kinds[0]} if len(kinds) > 1 else {}
            cos, _ = stock(torch.zeros(1, 2, 1, device=base.device), torch.arange(2, device=base.device)[None], **extra)
            refuse_interleaved(cos, type(stock).__name__)
            language_model.rotary_emb = AxisRotary(stock)
    base.config.adaptation = {"attention": adaptation.attention, "positions": adaptation.positions}


@contextmanager
def _said_as_bad_input() -> Iterator[None]:
    """Turns a `ValueError` of the files that go with exported models, which know no errors of ours, into `BadInput`."""
    try:
        yield
    except ValueError as error:
        raise BadInput(str(error)) from error


def run_forward(
    model: nn.Module,
    view: PassInputs,
    adaptation: Adaptation = STOCK,
    mask_embedding: nn.Module | None = None,
    encoded: EncoderOutput | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> ForwardOutput:
    """One pass over a view. `mask_embedding(embeddings, masked)` puts the learned embedding in; `encoded` keeps the encoder's output.

    `outputs` are what encoder and connector gave beforehand (`Sight.outputs`); they stand in for the view's pixels.

    Raises `BadInput` for views that the family cannot take (packed rows where the stock attention is no causal one).
    """
    base = base_model(model)
    family = family_of(base.config)
    language_model = base.get_submodule(family.language_model)
    kept: list[Tensor] = []

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, **_edits(kwargs, view, family, language_model, adaptation, mask_embedding)}

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        kept.append(output.last_hidden_state)

    def pick(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wanted = view.wanted if view.wanted is not None else torch.zeros(0, dtype=torch.long, device=args[0].device)
        return (args[0].flatten(0, 1)[wanted][None], *args[1:])

    with ExitStack() as stack:
        if encoded is not None and view.pixels:
            stack.enter_context(encoded.around(base.get_submodule(family.encoder)))
        for handle in (
            language_model.register_forward_pre_hook(before, with_kwargs=True),
            language_model.register_forward_hook(after),
            base.get_submodule(family.lm_head).register_forward_pre_hook(pick),
        ):
            stack.callback(RemovableHandle.remove, handle)
        given = _inputs(view, family) if outputs is None else {**_inputs(replace(view, pixels={}), family), "mm_encoder_outputs": outputs}
        logits = base(**given, **_plainly(base.config), use_cache=False).logits[0]
    return ForwardOutput(kept[0], logits)


def _plainly(config: Any) -> dict[str, bool]:
    """The keyword that keeps an exported model from adapting by itself what is adapted here."""
    return {"as_stock": True} if config.model_type.startswith(EXPORTED) else {}


def _inputs(view: PassInputs, family: Family) -> dict[str, Any]:
    """The keyword arguments of the stock forward. Unpadded rows go without a mask, so that the causal kernel is chosen."""
    inputs: dict[str, Any] = {"input_ids": view.input_ids, **view.pixels}
    if not bool(view.layout.real.all()):
        inputs["attention_mask"] = view.layout.real.long()
    if family.token_types is not None:
        answer = torch.zeros_like(view.layout.vision) if view.suffix is None else view.suffix
        inputs[family.token_types] = (view.layout.vision if family.typed_tokens == "picture" else answer).long()
    if family.positions == "mrope":
        inputs["position_ids"] = axis_positions(view.layout, two_d=True)
    return inputs


def _edits(
    kwargs: Mapping[str, Any],
    view: PassInputs,
    family: Family,
    language_model: nn.Module,
    adaptation: Adaptation,
    mask_embedding: nn.Module | None,
) -> dict[str, Any]:
    """What the language model is given in place of what the stock forward gave it."""
    edits: dict[str, Any] = {}
    embeddings = kwargs["inputs_embeds"]
    if mask_embedding is not None and view.masked is not None:
        edits["inputs_embeds"] = mask_embedding(embeddings, view.masked)
        if kwargs.get("deepstack_visual_embeds") is not None:
            hidden = view.masked[view.layout.vision][:, None]
            # These go past the input, to the first layers; at a masked token they would tell what it hides.
            edits["deepstack_visual_embeds"] = [part.masked_fill(hidden, 0.0) for part in kwargs["deepstack_visual_embeds"]]
    if not bool(view.layout.vision.any()) and not view.layout.is_packed:
        return edits  # text alone: whatever the stock forward chose, to the bit
    mixed, two_d, packed = adaptation.attention == "mixed", adaptation.positions == "2d", view.layout.is_packed
    if packed and not mixed and family.attention == "prefix":
        raise BadInput(
            f"{family.name} attends to its whole prompt in both directions, so packed samples cannot be told apart; use mixed attention"
        )
    if mixed or packed or (two_d and family.attention == "causal"):
        # Positions that are not 0, 1, 2 ... always go with a mask of ours: without one they would be taken for packing.
        edits["attention_mask"] = _mask(view.layout, mixed or family.attention == "blocks", language_model, embeddings)
    if family.positions == "1d" and (packed or two_d):
        axes = axis_positions(view.layout, two_d=two_d)
        edits["position_ids"] = axes if two_d else axes[0]
    return edits


def _mask(layout: Layout, mixed: bool, language_model: nn.Module, embeddings: Tensor) -> Any:
    """The prepared mask, one for each kind of layer where there are several, in the precision of the attention."""
    kind = embeddings.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else embeddings.dtype
    with _said_as_bad_input():
        return language_mask(layout, mixed, language_model.config, dtype)
