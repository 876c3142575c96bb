"""What transformers may do with the folder of a model, by any author: options of `from_pretrained`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Code in the folder is neither run nor asked about: transformers would put the question to a terminal, and wait for an answer.
NO_CODE: Mapping[str, Any] = {"trust_remote_code": False}
# Weights are safetensors only: a pickle can hold calls of any function.
SAFE_WEIGHTS: Mapping[str, Any] = {"use_safetensors": True, **NO_CODE}
