"""What is kept of a model's hidden states: a few vectors a picture and site, reduced where they arise; never the states themselves.

One pass over the pictures serves the ladder, likeness, geometry, gap and identifiability. The arrays lie on disk, so that memory does
not grow with the number of sites.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker, Pictures, Scored
from theodolite.asking.rows import Batch, TokenRow
from theodolite.measurement.internals.token_similarity import effective_rank, mean_pairwise_cosine
from theodolite.models.taps import layer_sites, touching
from theodolite.models.vision_features import VisionFeatures
from theodolite.records.progress import Progress, silent

MOST_CHANNELS = 256  # of tokens that are kept one by one
MOST_TOKEN_BYTES = 2**29  # a site


@dataclass(frozen=True)
class FactorQuestion:
    """An open question that is asked of every picture: by what it is about, its text and choices."""

    about: str
    text: str
    choices: tuple[str, ...]


class Activations:
    """Reduced hidden states by site, float32; row i is picture i of the pool, NaN where it was not captured.

    Sites: "encoder", "connector", "layer.1" ... "layer.L". Tokens one by one are kept at `token_sites`, by at most 256 channels (a random
    projection of more) and for the first pictures, as many as fit in 512 MiB a site (`num_tokened`); ranks for some pictures only.
    """

    def __init__(self, sites: Sequence[str], queries: Sequence[str], num_pictures: int) -> None:
        self.sites, self.queries = tuple(sites), tuple(queries)
        self.token_sites: tuple[str, ...] = ()
        self.cells: Int[np.ndarray, "token 2"] | None = None
        self.num_pictures = self.num_tokened = num_pictures
        self._folder = Path(tempfile.mkdtemp(prefix="theodolite-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._arrays: dict[tuple[str, str], np.ndarray] = {}

    def mean(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """Mean over the picture's vision tokens."""
        return self._arrays["mean", site]

    def largest(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """Maximum over the picture's vision tokens, by channel."""
        return self._arrays["largest", site]

    def one_vision(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """One of the picture's vision tokens, drawn at random."""
        return self._arrays["one_vision", site]

    def one_text(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """One of the text tokens behind the picture, drawn at random. Not at the encoder."""
        return self._arrays["one_text", site]

    def mean_text(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """Mean of the text tokens behind the picture. Not at the encoder."""
        return self._arrays["mean_text", site]

    def likeness(self, site: str) -> Float[np.ndarray, " picture"]:
        """Mean pairwise cosine of the picture's vision tokens, -1 to 1."""
        return self._arrays["likeness", site][:, 0]

    def rank(self, site: str) -> Float[np.ndarray, " picture"]:
        """Effective rank (RankMe) of the picture's vision tokens, 1 or more; NaN where it was not computed."""
        return self._arrays["rank", site][:, 0]

    def answer(self, query: str) -> Float[np.ndarray, "picture dim"]:
        """The last hidden state, behind the final norm, where the answer to a query is predicted."""
        return self._arrays["answer", query]

    def tokens(self, site: str) -> Float[np.ndarray, "picture token channel"]:
        """Vision tokens one by one, of the first `num_tokened` pictures."""
        return self._arrays["tokens", site]

    def said(self, query: str) -> Int[np.ndarray, " picture"]:
        """Index of the choice that the model gives to a query, -1 where it was not asked."""
        return self._arrays["said", query][:, 0]

    def put(self, kind: str, site: str, pictures: Int[np.ndarray, " row"], values: Tensor) -> None:
        """Keeps one row a picture."""
        if (kind, site) not in self._arrays:
            path = self._folder / f"{len(self._arrays)}.npy"  # a query's name may be no name of a file
            number = self.num_tokened if kind == "tokens" else self.num_pictures
            dtype = "int64" if kind == "said" else "float32"
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(number, *values.shape[1:]))
            array[:] = -1 if kind == "said" else np.nan
            self._arrays[kind, site] = array
        self._arrays[kind, site][pictures] = values.detach().cpu().numpy()


def capture(
    asker: LocalAsker,
    pool: Pictures,
    pictures: Int[np.ndarray, " chosen"],
    questions: Sequence[FactorQuestion],
    ranked: Int[np.ndarray, " ranked"],
    seed: int,
    progress: Progress = silent,
) -> Activations:
    """Runs the model over pictures of the pool, each with all questions, and keeps the reductions.

    Where a picture sees its question (PaliGemma), its vision tokens are those under the first question, which the asker's notices say.
    """
    layers = layer_sites(asker.base)
    held = Activations(("encoder", "connector", *layers), [question.about for question in questions], len(pool))
    held.token_sites = tuple(dict.fromkeys(("connector", layers[len(layers) // 2 - 1], layers[-1])))
    grids = asker.model_inputs(pool).grids
    held.cells = grids[0].numpy() if len(grids) == 1 else None
    catcher = _Catcher(held, asker, set(ranked.tolist()), np.random.default_rng([seed, 7]))
    asks = [Question(int(picture), question.text, question.choices) for picture in pictures for question in questions]
    if asker.sharing == "nothing" and questions:
        asker.notices.append(f"vision tokens are measured as they are under the question {questions[0].text!r}")

    def run(rows: Sequence[TokenRow]) -> tuple[int, list[BatchReduction]]:
        batch = asker.collate(rows, pool)
        vision_features = asker.encode_batch(batch, pool, patches=True)
        catcher.begin(batch, vision_features, len(questions))
        with touching(asker.base, {site: catcher.touch(site) for site in layers}):
            scored = asker.score(batch, vision_features)
        catcher.answers(batch, scored, questions)
        return len(batch.questions), catcher.caught

    done = 0
    with torch.no_grad():
        for part in asker.groups(pool, asks):
            for number, caught in asker.fitting(part, run):
                catcher.commit(caught)
                done += number
                progress(done, len(asks))
    return held


@dataclass(frozen=True, eq=False)
class BatchReduction:
    """One reduction of one batch: what it is, where, of which pictures; `tokens` counts what a mean over text is over."""

    kind: str
    site: str
    pictures: Int[np.ndarray, " row"]
    values: Tensor
    tokens: Int[np.ndarray, " row"] | None = None


class _Catcher:
    """Reduces one batch after another into the arrays."""

    def __init__(self, held: Activations, asker: LocalAsker, ranked: set[int], rng: np.random.Generator) -> None:
        self.held, self.asker, self.ranked = held, asker, ranked
        self.caught: list[BatchReduction] = []
        self.counts: dict[str, Int[np.ndarray, " picture"]] = {}
        # Where the one token of each picture is drawn, as a fraction of its tokens: the same at all sites.
        self.draws = rng.random((held.num_pictures, 2))
        self.projections: dict[int, Tensor] = {}

    def begin(self, batch: Batch, vision_features: VisionFeatures, num_questions: int) -> None:
        """A new batch: what encoder and connector gave, and the embeddings of its text. What an earlier try caught is forgotten."""
        self.batch, self.pictures, self.caught = batch, batch.pictures.numpy(), []
        # Of rows about one picture those whose vision tokens count: any, but where they see the question, those of the first.
        first = batch.row_of_question.cpu().numpy()[np.array(batch.questions) % num_questions == 0]
        self.seen = np.arange(len(self.pictures)) if self.asker.sharing != "nothing" else first
        assert vision_features.patches is not None
        self._vision("encoder", vision_features.patches)
        self._vision("connector", vision_features.tokens)
        self._text("connector", self.asker.base.get_input_embeddings()(batch.view.input_ids))

    def touch(self, site: str) -> Callable[[Tensor], None]:
        """A tap at a layer."""

        def look(hidden: Tensor) -> None:
            self._vision(site, hidden[self.batch.vision].reshape(len(hidden), -1, hidden.shape[-1]))
            self._text(site, hidden)

        return look

    def answers(self, batch: Batch, scored: Scored, questions: Sequence[FactorQuestion]) -> None:
        """The answer positions and what was said; asks stand picture by picture, in the order of the questions."""
        about = torch.tensor(batch.questions) % len(questions)
        owner, row = batch.question_of_choice.cpu(), batch.row_of_question.cpu().numpy()
        for number, question in enumerate(questions):
            asks = (about == number).numpy()
            if asks.any():
                pictures = self.pictures[row[asks]]
                scores = scored.choices[(about == number)[owner].to(scored.choices.device)].reshape(len(pictures), -1)
                self._catch("answer", question.about, pictures, scored.answer[torch.from_numpy(asks)].float())
                self._catch("said", question.about, pictures, scores.argmax(dim=1, keepdim=True))

    def commit(self, caught: Sequence[BatchReduction]) -> None:
        """Keeps what a batch gave. Text of a picture that several rows are about is averaged over all of them."""
        for part in caught:
            values = part.values
            if part.tokens is not None:
                counts = self.counts.setdefault(part.site, np.zeros(self.held.num_pictures, dtype=np.int64))
                for row, (picture, number) in enumerate(zip(part.pictures.tolist(), part.tokens.tolist(), strict=True)):
                    if counts[picture]:
                        old = torch.from_numpy(self.held.mean_text(part.site)[picture])
                        values[row] += (old - values[row]) * (counts[picture] / (counts[picture] + number))
                    counts[picture] += number
                    self.held.put(part.kind, part.site, part.pictures[row : row + 1], values[row : row + 1])
            else:
                self.held.put(part.kind, part.site, part.pictures, values)

    def _catch(self, kind: str, site: str, pictures: Int[np.ndarray, " row"], values: Tensor, tokens: Tensor | None = None) -> None:
        self.caught.append(BatchReduction(kind, site, pictures, values.detach().cpu(), None if tokens is None else tokens.cpu().numpy()))

    def _vision(self, site: str, everything: Float[Tensor, "row token dim"]) -> None:
        if not len(self.seen):
            return
        tokens, pictures = everything[torch.from_numpy(self.seen).to(everything.device)].float(), self.pictures[self.seen]
        rows = torch.arange(len(tokens), device=tokens.device)
        drawn = torch.from_numpy((self.draws[pictures, 0] * tokens.shape[1]).astype(int)).to(tokens.device)
        self._catch("mean", site, pictures, tokens.mean(dim=1))
        self._catch("largest", site, pictures, tokens.amax(dim=1))
        self._catch("one_vision", site, pictures, tokens[rows, drawn])
        self._catch("likeness", site, pictures, mean_pairwise_cosine(tokens)[:, None])
        chosen = np.array([number for number, picture in enumerate(pictures) if int(picture) in self.ranked], dtype=int)
        rank = torch.full((len(tokens), 1), torch.nan)
        if len(chosen):
            rank[chosen, 0] = effective_rank(tokens[torch.from_numpy(chosen).to(tokens.device)]).cpu()
        self._catch("rank", site, pictures, rank)
        if site in self.held.token_sites:
            channels = min(tokens.shape[2], MOST_CHANNELS)
            self.held.num_tokened = min(self.held.num_tokened, max(1, MOST_TOKEN_BYTES // (4 * tokens.shape[1] * channels)))
            kept = pictures < self.held.num_tokened
            if kept.any():
                self._catch("tokens", site, pictures[kept], self._projected(tokens[torch.from_numpy(kept).to(tokens.device)]))

    def _text(self, site: str, hidden: Float[Tensor, "row token dim"]) -> None:
        text = self.batch.text
        count = text.sum(dim=1)
        # Not a product with the mask: what stands at padding may be no number.
        mean = torch.where(text[..., None], hidden, 0).float().sum(dim=1) / count[:, None]
        self._catch("mean_text", site, self.pictures, mean, count)
        drawn = (torch.from_numpy(self.draws[self.pictures, 1]).to(count.device) * count).long()
        place = (text.cumsum(dim=1) == drawn[:, None] + 1).int().argmax(dim=1)
        self._catch("one_text", site, self.pictures, hidden[torch.arange(len(hidden), device=place.device), place].float())

    def _projected(self, tokens: Float[Tensor, "row token dim"]) -> Float[Tensor, "row token channel"]:
        dim = tokens.shape[2]
        if dim <= MOST_CHANNELS:
            return tokens
        if dim not in self.projections:
            draw = np.random.default_rng(dim).standard_normal((dim, MOST_CHANNELS)) / np.sqrt(MOST_CHANNELS)
            self.projections[dim] = torch.from_numpy(draw).to(tokens)
        return tokens @ self.projections[dim]
