"""The output of a frozen encoder for a batch's pictures, computed in the first of several passes and reused in the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from theodolite.models.families import Family


@dataclass
class EncoderOutput:
    """What several passes over the same pictures share: all of a frozen encoder, or its blocks where only the connector in it is trained.

    An encoder with any other trained parameter runs in every pass.
    """

    output: Any = field(default=None, repr=False)
    hidden: dict[int, Tensor] = field(default_factory=dict, repr=False)
    # Whether nothing of the encoder is trained, and whether only the connector in it is: asked once for all passes.
    trained: tuple[bool, bool] | None = None

    @contextmanager
    def around(self, base: nn.Module, family: Family) -> Iterator[None]:
        """Within the context, frozen parts of the encoder of `base` run only if their outputs are not stored yet."""
        encoder = base.get_submodule(family.encoder)
        if self.trained is None:
            connector = chain.from_iterable(base.get_submodule(path).parameters() for path in family.connector)
            trained = {id(parameter) for parameter in encoder.parameters() if parameter.requires_grad}
            self.trained = (not trained, trained <= {id(parameter) for parameter in connector})
        nothing, connector_alone = self.trained
        with ExitStack() as stack:
            if nothing:
                stack.enter_context(replaced(encoder, "forward", self._whole(encoder.forward)))
            elif family.encoder_blocks is not None and connector_alone:
                blocks: Any = base.get_submodule(family.encoder_blocks)
                kept = {len(blocks) - 1, *getattr(encoder, "deepstack_visual_indexes", ())}
                is_stored = bool(self.hidden)
                for number, block in enumerate(blocks):
                    stack.enter_context(replaced(block, "forward", self._block(number, block.forward, number in kept, is_stored)))
            yield

    def _whole(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def forward_once(*args: Any, **kwargs: Any) -> Any:
            if self.output is None:
                with torch.no_grad():
                    self.output = forward(*args, **kwargs)
            return copy(self.output)  # Qwen-VL's get_image_features writes into what it is given

        return forward_once

    def _block(self, number: int, forward: Callable[..., Any], is_kept: bool, is_stored: bool) -> Callable[..., Any]:
        def forward_once(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            if is_stored:  # blocks whose outputs only feed the next one pass on what they get
                return self.hidden.get(number, hidden)
            with torch.no_grad():
                output: Tensor = forward(hidden, *args, **kwargs)
            if is_kept:
                self.hidden[number] = output
            return output

        return forward_once


@contextmanager
def replaced(module: nn.Module, name: str, method: Callable[..., Any]) -> Iterator[None]:
    """Another method for the time of a pass, such as `forward`: a hook can change a module's output but not skip its forward."""
    before = vars(module).get(name)  # such as the forward that `cached_features` sets
    vars(module)[name] = method
    try:
        yield
    finally:
        del vars(module)[name]
        if before is not None:
            vars(module)[name] = before
