"""The options of `theodolite survey`: what is asked, how a model that is loaded here runs, and how one behind an endpoint is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Model = Annotated[str, typer.Argument(help="folder or hub name of a Hugging Face VLM; with --endpoint, its name there", show_default=False)]
Out = Annotated[Path | None, typer.Option(help="folder for the record (default: runs/survey-MODEL-WORLD)", show_default=False)]
WorldOrGallery = Annotated[
    str | None, typer.Option(help="shapes or easy_vqa: pairs are drawn from it; or a gallery such as openmoji:skin_tone")
]
PairsFile = Annotated[Path | None, typer.Option(help="or a file of pairs: a manifest, JSONL or Parquet (docs/manifest.md)")]
Asked = Annotated[
    str | None,
    typer.Option(help="the policy to judge by (default: as trained, else all open questions)"),
]
PriorStrength = Annotated[float | None, typer.Option(help="strength of the training prior (default: as trained, else 0)")]
Scenes = Annotated[int | None, typer.Option(min=2, help="base scenes of pairs drawn from a world (default: 200); of a gallery all")]
PairsSeed = Annotated[int | None, typer.Option(min=0, help="seed of pairs drawn from a world (default: 0)")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: cpu)")]
Precision = Annotated[Literal["float32", "bfloat16", "float16"] | None, typer.Option(help="precision of the weights (default: float32)")]
RowsAtOnce = Annotated[int | None, typer.Option(min=1, help="rows of tokens at once (default: as memory allows)")]
Measures = Annotated[
    str,
    typer.Option(help="beside the answers: ladder,likeness,allocation,geometry,fisher,causal,gap,identifiability, or all"),
]
InsideScenes = Annotated[int | None, typer.Option(min=2, help="scenes that measures of the inside use (default: 500)")]
Attention = Annotated[Literal["sdpa", "eager"] | None, typer.Option(help="attention back end (default: sdpa)")]
Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="ask a model behind an OpenAI-compatible chat endpoint, such as http://localhost:8000/v1"),
]
KeyName = Annotated[
    str | None, typer.Option(metavar="NAME", help="endpoint: environment variable that holds the key (default: OPENAI_API_KEY)")
]
Answers = Annotated[
    Literal["auto", "logprobs", "text"] | None,
    typer.Option(help="endpoint: how answers are read (default: auto, which is logprobs where the server offers them)"),
]
PictureSize = Annotated[int | None, typer.Option(min=16, help="endpoint: side of the pictures in pixels (default: 224)")]
Concurrency = Annotated[int | None, typer.Option(min=1, help="endpoint: requests at once (default: 8)")]
PerMinute = Annotated[float | None, typer.Option(min=0.01, help="endpoint: most requests a minute (default: no limit)")]
Timeout = Annotated[float | None, typer.Option(min=0.01, help="endpoint: seconds to wait for an answer (default: 120)")]
Cache = Annotated[Path | None, typer.Option(help="endpoint: file of answers (default: OUT.responses.sqlite)")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="endpoint: print what it would cost, ask nothing, write nothing")]
PriceIn = Annotated[float | None, typer.Option(min=0, help="endpoint: USD for a million tokens sent")]
PriceOut = Annotated[float | None, typer.Option(min=0, help="endpoint: USD for a million tokens received")]
