"""A survey whose answers come from the log of another tool, in a survey's record."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from theodolite.records.asking import PROMPT_MEANING, PromptStyle
from theodolite.records.part import Part

LogTool = Literal["lmms-eval", "VLMEvalKit"]
LogKey = Literal["id", "picture and question"]


class AnswersConfig(Part):
    """Answers that another tool asked a model for and logged; the model itself was not run, and its weights are unknown."""

    tool: LogTool = Field(description="the tool whose format the log has")
    name: str = Field(description="the model's name as the survey was given it")
    logged_name: str | None = Field(description="the model's name in the tool's own results beside the log; null: there is none")
    log: str = Field(description="name of the log's file, without its folder")
    log_sha256: str = Field(description="over the bytes of the log")
    key: LogKey = Field(
        description="what joins answers to pairs: the id of an exported question, or the picture's path together with the question"
    )
    prompt: PromptStyle = Field(description=f"style of the prompts. {PROMPT_MEANING}")
    prompt_sha256: str = Field(
        description="over the template of the prompts, where the log says that they are those of the export; else over the tool's name and "
        "the style, since the tool wrote them in its own words"
    )
    num_logged: int = Field(description="answers in the log")
    num_used: int = Field(description="of those, how many answer a question of these pairs")

    @property
    def words(self) -> str:
        """Description in one line."""
        return f"{self.name}, answers read from {self.log} of {self.tool}, joined by {self.key}, prompt {self.prompt}"

    @property
    def score(self) -> None:
        """Always None: whole choices are not scored in logs of texts."""
        return None

    @property
    def weights_sha256(self) -> None:
        """Always None: the model was not at hand."""
        return None
