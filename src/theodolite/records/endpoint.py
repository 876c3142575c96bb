"""What a survey's record says of a model behind an endpoint. No key, no password, no time of day."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.part import Part


class Capabilities(Part):
    """What a server takes and gives, found out once by requests with a blank picture."""

    logprobs: int = Field(description="how many of the likeliest first tokens it tells the log-probability of; 0: it tells none")
    seed: bool = Field(description="whether it takes a seed")
    temperature: bool = Field(description="whether it takes a temperature; without one, answers may differ when asked again")
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(description="what it calls the limit of tokens in an answer")


class EndpointConfig(Part):
    """A model behind an OpenAI-compatible chat endpoint; its weights are not known, only what it answers."""

    base_url: str = Field(description="where it was asked, without user, password and query")
    name: str = Field(description="the model's name as it was asked for")
    served_as: tuple[str, ...] = Field(description="the names that the server's answers bear, sorted; empty: they bear none")
    offers: Capabilities = Field(description="what the server takes and gives")
    answers: Literal["logprobs", "text"] = Field(
        description="logprobs: probabilities of the options' letters as first token; text: what was written, read as one of the choices"
    )
    prompt_sha256: str = Field(description="over the template of the prompts")
    picture_size: int = Field(description="side of the pictures in pixels, as they were sent")
    max_tokens: int = Field(description="limit of tokens in an answer")
    seed: int | None = Field(description="seed that was sent; null: the server takes none")

    @property
    def words(self) -> str:
        """In a line."""
        other = [name for name in self.served_as if name != self.name]
        served = f" (served as {', '.join(other)})" if other else ""
        how = "answers by the letters' log-probabilities" if self.answers == "logprobs" else "answers read from text"
        return f"{self.name}{served} at {self.base_url}, {how}"

    @property
    def weights_sha256(self) -> None:
        """Nobody outside the server knows."""
        return None
