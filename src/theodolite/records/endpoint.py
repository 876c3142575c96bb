"""A model behind an endpoint in a survey's record. It holds no key, no password, no time of day."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.asking import PROMPT_MEANING, PromptStyle
from theodolite.records.part import Part


class Capabilities(Part):
    """What a server accepts and returns, from requests with a blank picture."""

    logprobs: int = Field(description="number of likeliest first tokens whose log-probabilities it returns; 0: none")
    seed: bool = Field(description="whether it accepts a seed")
    temperature: bool = Field(description="whether it accepts a temperature; without one, repeated answers may differ")
    limit_name: Literal["max_tokens", "max_completion_tokens"] = Field(description="its name of the limit of tokens in an answer")


class EndpointConfig(Part):
    """A model behind an OpenAI-compatible chat endpoint; its weights are unknown, only its answers are seen."""

    base_url: str = Field(description="address of the endpoint, without user, password and query")
    name: str = Field(description="the model's name in requests")
    served_as: tuple[str, ...] = Field(
        description="the model names in the server's answers, else in its list of models, sorted; empty: there are none"
    )
    fingerprints: tuple[str, ...] = Field(
        default=(), description="the versions in the server's answers (system_fingerprint), sorted; empty: there are none"
    )
    offers: Capabilities = Field(description="what the server accepts and returns")
    answers: Literal["logprobs", "text"] = Field(
        description="logprobs: probabilities of the options' letters as first token; text: the answer's text, read as one of the choices"
    )
    prompt: PromptStyle = Field(default="letters", description=f"style of the prompts. {PROMPT_MEANING}")
    prompt_sha256: str = Field(description="over the template of the prompts")
    picture_size: int | None = Field(
        description="side of the pictures in pixels, as they were sent; null: pictures of files at their own aspect ratio"
    )
    max_tokens: int = Field(description="limit of tokens in an answer")
    seed: int | None = Field(description="seed that was sent; null: the server accepts none")

    @property
    def words(self) -> str:
        """Description in one line."""
        other = [name for name in self.served_as if name != self.name]
        served = f" (served as {', '.join(other)})" if other else ""
        how = "answers by the letters' log-probabilities" if self.answers == "logprobs" else "answers read from text"
        return f"{self.name}{served} at {self.base_url}, {how}, prompt {self.prompt}"

    @property
    def score(self) -> None:
        """Always None: whole choices are not scored by endpoints."""
        return None

    @property
    def weights_sha256(self) -> None:
        """Always None: not known outside the server."""
        return None
