"""Option types of `theodolite survey`: the questions, how a local model runs, and how an endpoint is reached."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from theodolite.cli.names import known_world_or_gallery

Model = Annotated[
    str,
    typer.Argument(
        help="folder or hub name of a Hugging Face VLM; with --endpoint, its name there; with --answer-log, any name", show_default=False
    ),
]
Out = Annotated[Path | None, typer.Option(help="folder for the record (default: runs/survey-MODEL-WORLD)", show_default=False)]
Title = Annotated[str | None, typer.Option(help="name of the record and of its page (default: the training run's, else the model's)")]
WorldOrGallery = Annotated[
    str | None,
    typer.Option(help="source of the pairs: shapes, easy_vqa, or a gallery such as openmoji:skin_tone", callback=known_world_or_gallery),
]
PairsFile = Annotated[Path | None, typer.Option(help="or a file of pairs: a manifest in JSONL or Parquet (docs/reference/manifest.md)")]
PolicyText = Annotated[str | None, typer.Option(help="query policy to judge by (default: as trained, else all open questions)")]
PromptText = Annotated[
    Literal["free", "options", "letters"] | None,
    typer.Option(help="how questions are written: alone, with the choices listed, or with lettered choices (default: free)"),
]
ScoreOfChoices = Annotated[
    Literal["total", "per_token"] | None,
    typer.Option(help="what decides between choices: total log-probability, or per token (default: total)"),
]
PriorStrength = Annotated[
    float | None, typer.Option(help="correlation strength of the training prior, 0 to 1 (default: as trained, else 0)")
]
Scenes = Annotated[int | None, typer.Option(min=2, help="number of base scenes of the pairs (default: 200); for a gallery, all")]
PairsSeed = Annotated[int | None, typer.Option(min=0, help="seed of the pairs that are drawn (default: 0)")]
ReadFrac = Annotated[
    float | None, typer.Option(min=0, max=1, help="a factor is read if its answers move in more than this share of pairs (default: 0.5)")
]
LeakAboveNoise = Annotated[
    float | None, typer.Option(min=0, max=1, help="a factor leaks if answers move this much more often than by noise (default: 0.1)")
]
Confidence = Annotated[float | None, typer.Option(min=0.5, max=0.999, help="level of all intervals (default: 0.95)")]
NoiseRows = Annotated[
    Literal["perturb", "given"] | None,
    typer.Option(help="noise of given pairs: perturb asks slightly changed pictures where there is none; given uses only what is there"),
]
PlanOnly = Annotated[bool, typer.Option("--plan", help="print what differences the pairs can show, by factor; ask and write nothing")]
PictureSize = Annotated[
    int | None,
    typer.Option(
        min=8, help="side in pixels at which worlds are drawn and squares are made of picture files (default: the model's; endpoints: 224)"
    ),
]
MaxPixels = Annotated[
    int | None,
    typer.Option(min=64, help="picture files: most pixels, width x height (default: as the model's processor has it; endpoints: 1048576)"),
]
MinPixels = Annotated[int | None, typer.Option(min=64, help="picture files: least pixels (default: as the model's processor has it)")]
Workers = Annotated[int | None, typer.Option(min=1, help="threads that read picture files (default: one for each core, at most 8)")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (default: CUDA or MPS where there is one, else cpu)")]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(help="precision of the weights (default: float32 on a CPU, else bfloat16)"),
]
Devices = Annotated[
    str | None, typer.Option(help="several devices of this machine, a worker on each: numbers of GPUs such as 0,1, or cpu,cpu (needs Ray)")
]
On = Annotated[
    Literal["here", "ray"] | None, typer.Option(help="this machine, or all GPUs of the Ray cluster that RAY_ADDRESS names (default: here)")
]
RowsAtOnce = Annotated[int | None, typer.Option(min=1, help="rows of a forward pass (default: as many as memory allows)")]
SaveEvery = Annotated[
    int | None,
    typer.Option(min=1, help="questions after which answers are stored, so that an interrupted survey goes on from there (default: 512)"),
]
Measures = Annotated[
    str,
    typer.Option(
        help="measures in addition to the answers: ladder,likeness,allocation,geometry,fisher,causal,gap,identifiability,words, or all"
    ),
]
SentencesFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="measure words: a text file, a sentence a line, whose words in context are compared with"),
]
InsideScenes = Annotated[int | None, typer.Option(min=2, help="number of scenes for measures of the inside (default: 500)")]
Attention = Annotated[Literal["sdpa", "eager"] | None, typer.Option(help="attention back end (default: sdpa)")]
Endpoint = Annotated[
    str | None,
    typer.Option(metavar="URL", help="survey a model behind an OpenAI-compatible chat endpoint, such as http://localhost:8000/v1"),
]
KeyName = Annotated[
    str | None, typer.Option(metavar="NAME", help="endpoint: environment variable that holds the key (default: OPENAI_API_KEY)")
]
AnswerLog = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="survey answers that lmms-eval or VLMEvalKit has logged, without the model; with --pairs (docs/howto/tools.md)"
    ),
]
Answers = Annotated[
    Literal["auto", "logprobs", "text"] | None,
    typer.Option(help="endpoint: how answers are read (default: auto, which is logprobs where the server offers them)"),
]
Concurrency = Annotated[int | None, typer.Option(min=1, help="endpoint: concurrent requests (default: 8)")]
PerMinute = Annotated[float | None, typer.Option(min=0.01, help="endpoint: largest number of requests a minute (default: no limit)")]
Timeout = Annotated[float | None, typer.Option(min=0.01, help="endpoint: seconds to wait for an answer (default: 120)")]
Retries = Annotated[
    int | None, typer.Option(min=0, help="endpoint: how often a request that fails for a passing reason is sent again (default: 6)")
]
LongestWait = Annotated[
    float | None, typer.Option(min=0, help="endpoint: most seconds between two tries, which begin with 1 and double (default: 60)")
]
Cache = Annotated[Path | None, typer.Option(help="endpoint: file that keeps the answers (default: OUT.responses.sqlite)")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="endpoint: print the expected cost; ask and write nothing")]
PriceIn = Annotated[float | None, typer.Option(min=0, help="endpoint: USD for a million tokens sent")]
PriceOut = Annotated[float | None, typer.Option(min=0, help="endpoint: USD for a million tokens received")]
