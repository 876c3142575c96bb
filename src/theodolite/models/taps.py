"""Taps: hooks that read or change the language model's hidden states, one layer at a time. Taps store nothing themselves.

Site names are the same in every family: "encoder" (the connector's input), "connector" (its output), and "layer.1" to "layer.L", the
outputs of the language model's blocks. `VisionFeatures` has the first two; this module taps the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from theodolite.models.encoder_output import replaced
from theodolite.models.families import family_of
from theodolite.models.forward import base_model

# Takes a layer's hidden states (row, token, dim); a tensor that it returns replaces them.
Touch = Callable[[Tensor], Tensor | None]


def layers_of(model: Any) -> nn.ModuleList:
    """The blocks of the language model, in order."""
    base = base_model(model)
    return base.get_submodule(f"{family_of(base.config).language_model}.layers")


def layer_sites(model: Any) -> tuple[str, ...]:
    """ "layer.1" to "layer.L"."""
    return tuple(f"layer.{number + 1}" for number in range(len(layers_of(model))))


@contextmanager
def touching(model: Any, touches: Mapping[str, Touch]) -> Iterator[None]:
    """Within the context, each layer's hidden states pass through its touch. Raises `ValueError` for a site that is no layer."""
    layers, sites = layers_of(model), layer_sites(model)
    with ExitStack() as stack:
        for site, touch in touches.items():
            if site not in sites:
                raise ValueError(f"{site!r} is no layer of this model; it has {sites[0]} to {sites[-1]}")
            handle = layers[sites.index(site)].register_forward_hook(_hidden_hook(touch))
            stack.callback(RemovableHandle.remove, handle)
        stack.enter_context(_uncompiled(layers))
        yield


@dataclass
class BlockOutputs:
    """Outputs of some of the language model's blocks in a pass, by site. `is_tuple`: blocks of this model return tuples."""

    hidden: dict[str, Float[Tensor, "row token dim"]] = field(default_factory=dict)
    is_tuple: bool = False


@contextmanager
def recording_blocks(model: Any, sites: Sequence[str]) -> Iterator[BlockOutputs]:
    """Within the context, a pass leaves the outputs of the blocks at these sites."""
    layers, names, outputs = layers_of(model), layer_sites(model), BlockOutputs()

    def record(site: str, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs.is_tuple = isinstance(output, tuple)
        outputs.hidden[site] = output[0] if outputs.is_tuple else output

    with ExitStack() as stack:
        stack.enter_context(_uncompiled(layers))
        for site in sites:
            stack.callback(RemovableHandle.remove, layers[names.index(site)].register_forward_hook(partial(record, site)))
        yield outputs


@contextmanager
def resuming(model: Any, site: str, outputs: BlockOutputs) -> Iterator[None]:
    """Within the context, blocks up to `site` do not run: the one at the site gives its recorded output. For the same rows only.

    Hooks of the blocks run as in a whole pass, and so do the blocks behind.
    """
    number, hidden = layer_sites(model).index(site), outputs.hidden[site]

    def pass_on(at: int, states: Tensor, *args: Any, **kwargs: Any) -> Any:
        output = hidden if at == number else states
        return (output,) if outputs.is_tuple else output

    layers = layers_of(model)
    with ExitStack() as stack:
        stack.enter_context(_uncompiled(layers))
        for at, layer in enumerate(layers[: number + 1]):
            stack.enter_context(replaced(layer, "forward", partial(pass_on, at)))
        yield


@contextmanager
def _uncompiled(layers: nn.ModuleList) -> Iterator[None]:
    """Within the context, layers that `torch.compile` compiled in place run uncompiled: compiled ones run no hook that is new to them."""
    compiled = [layer._compiled_call_impl for layer in layers]
    try:
        for layer in layers:
            layer._compiled_call_impl = None
        yield
    finally:
        for layer, implementation in zip(layers, compiled, strict=True):
            layer._compiled_call_impl = implementation


def _hidden_hook(touch: Touch) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        changed = touch(hidden)
        if changed is None:
            return None
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


@contextmanager
def watching_attention(model: Any, look: Callable[[int, Float[Tensor, "row head query key"]], None]) -> Iterator[None]:
    """Within the context, `look(number, map)` gets each block's number, from 0, and its attention map; at most one map is in memory.

    The attention back end is eager within the context, since the others return no maps.
    """
    base = base_model(model)
    language_model = base.get_submodule(family_of(base.config).language_model)
    own_backend = language_model.config._attn_implementation
    with ExitStack() as stack:
        stack.callback(language_model.set_attn_implementation, own_backend)
        language_model.set_attn_implementation("eager")
        for number, layer in enumerate(layers_of(model)):
            handle = layer.self_attn.register_forward_hook(_attention_hook(number, look))
            stack.callback(RemovableHandle.remove, handle)
        stack.enter_context(_uncompiled(layers_of(model)))
        yield


def _attention_hook(number: int, look: Callable[[int, Tensor], None]) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        look(number, output[1])

    return hook
