"""Loss of a language model on plain text, which visual training should not change."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class TextLoss(Part):
    """Next-token loss on held-out text, in separate windows."""

    model: str = Field(description="folder or name of the model")
    text: str = Field(description="source of the text")
    text_sha256: str = Field(description="over the text")
    tokenizer_sha256: str = Field(description="over the token ids: losses are comparable only where it is equal")
    num_tokens: int = Field(description="predicted tokens")
    num_windows: int = Field(description="windows of text: the unit of independence")
    nats_per_token: Estimate = Field(description="mean loss a token in nats, with an interval clustered by window")
    window_nats: tuple[float, ...] = Field(description="summed loss of each window in nats")
    window_tokens: tuple[int, ...] = Field(description="predicted tokens of each window")


class TextLossChange(Part):
    """Change of the loss on the same text from one model to another."""

    before: TextLoss = Field(description="the loss of the first model")
    after: TextLoss = Field(description="the loss of the second model")
    relative: Estimate = Field(
        description="change of the loss a token relative to the first, 0.005 for 0.5 per cent more; interval paired by window"
    )


class TextLosses(Part):
    """Loss of one model on plain text, and its change in other models."""

    first: TextLoss = Field(description="the model that the others are compared with")
    changes: tuple[TextLossChange, ...] = Field(description="one for each other model")

    def to_json(self) -> str:
        return self.model_dump_json(indent=1) + "\n"
