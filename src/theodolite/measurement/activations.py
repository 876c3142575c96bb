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

from theodolite.asking.answer import Ask
from theodolite.asking.batches import Batch
from theodolite.asking.local import LocalAsker, Pictures, Scored
from theodolite.measurement.alike import effective_rank, mean_pairwise_cosine
from theodolite.models.sight import Sight
from theodolite.models.taps import layer_sites, touching

MOST_CHANNELS = 256  # of tokens that are kept one by one
MOST_TOKEN_BYTES = 256 * 2**20  # a site
POOLED = ("mean", "largest", "one_vision", "one_text", "mean_text")
SCALARS = ("likeness", "rank")


@dataclass(frozen=True)
class Question:
    """An open question that is asked of every picture: by what it is about, its text and choices."""

    about: str
    text: str
    choices: tuple[str, ...]


class Activations:
    """Reduced hidden states by site, float32; row i is picture i of the pool, NaN where it was not captured.

    Sites: "encoder", "connector", "layer.1" ... "layer.L". Tokens one by one are kept at `token_sites`, by at most 256 channels (a random
    projection of more) and for as many pictures as fit in 256 MiB; ranks for the pictures of `ranked` only.
    """

    def __init__(self, sites: Sequence[str], queries: Sequence[str], num_pictures: int) -> None:
        self.sites, self.queries = tuple(sites), tuple(queries)
        self.token_sites: tuple[str, ...] = ()
        self.cells: Int[np.ndarray, "token 2"] | None = None
        self.num_pictures = num_pictures
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
        """Vision tokens one by one, float16, NaN where they were not kept."""
        return self._arrays["tokens", site]

    def said(self, query: str) -> Int[np.ndarray, " picture"]:
        """Index of the choice that the model gives to a query, -1 where it was not asked."""
        return self._arrays["said", query][:, 0]

    def put(self, kind: str, site: str, pictures: Int[np.ndarray, " row"], values: Tensor) -> None:
        """Keeps one row a picture."""
        if (kind, site) not in self._arrays:
            dtype = {"tokens": "float16", "said": "int64"}.get(kind, "float32")
            path = self._folder / f"{kind}-{site}.npy"
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(self.num_pictures, *values.shape[1:]))
            array[:] = -1 if kind == "said" else np.nan
            self._arrays[kind, site] = array
        self._arrays[kind, site][pictures] = values.detach().cpu().numpy()


def capture(
    asker: LocalAsker,
    pool: Pictures,
    pictures: Int[np.ndarray, " chosen"],
    questions: Sequence[Question],
    ranked: Int[np.ndarray, " ranked"],
    seed: int,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Activations:
    """Runs the model over pictures of the pool, each with all questions, and keeps the reductions."""
    layers = layer_sites(asker.base)
    held = Activations(("encoder", "connector", *layers), [question.about for question in questions], len(pool))
    held.token_sites = tuple(dict.fromkeys(("connector", layers[len(layers) // 2 - 1], layers[-1])))
    grids = asker.lens(pool).grids
    held.cells = grids[0].numpy() if len(grids) == 1 else None
    catcher = _Catcher(held, asker, set(ranked.tolist()), np.random.default_rng([seed, 7]))
    asks = [Ask(int(picture), question.text, question.choices) for picture in pictures for question in questions]
    done = 0
    with torch.no_grad():
        for rows in asker.groups(pool, asks):
            batch = asker.collate(rows, pool)
            sight = asker.see(batch, pool, patches=True)
            catcher.begin(batch, sight)
            with touching(asker.base, {site: catcher.touch(site) for site in layers}):
                scored = asker.score(batch, sight)
            catcher.answers(batch, scored, questions)
            done += len(batch.asks)
            tell(done, len(asks))
    return held


class _Catcher:
    """Reduces one batch after another into the arrays."""

    def __init__(self, held: Activations, asker: LocalAsker, ranked: set[int], rng: np.random.Generator) -> None:
        self.held, self.asker, self.ranked = held, asker, ranked
        # Where the one token of each picture is drawn, as a fraction of its tokens: the same at all sites.
        self.draws = rng.random((held.num_pictures, 2))
        self.projections: dict[int, Tensor] = {}

    def begin(self, batch: Batch, sight: Sight) -> None:
        """A new batch: what encoder and connector gave, and the embeddings of its text."""
        self.batch, self.pictures = batch, batch.pictures.numpy()
        assert sight.patches is not None
        self._vision("encoder", sight.patches)
        self._vision("connector", sight.tokens)
        self._text("connector", self.asker.base.get_input_embeddings()(batch.view.input_ids))

    def touch(self, site: str) -> Callable[[Tensor], None]:
        """A tap at a layer."""

        def look(hidden: Tensor) -> None:
            self._vision(site, hidden[self.batch.vision].reshape(len(hidden), -1, hidden.shape[-1]))
            self._text(site, hidden)

        return look

    def answers(self, batch: Batch, scored: Scored, questions: Sequence[Question]) -> None:
        """The answer positions and what was said; asks stand picture by picture, in the order of the questions."""
        about = torch.tensor(batch.asks) % len(questions)
        owner, row = batch.ask_of_choice.cpu(), batch.row_of_ask.cpu().numpy()
        for number, question in enumerate(questions):
            asks = (about == number).numpy()
            if asks.any():
                pictures = self.pictures[row[asks]]
                scores = scored.choices[(about == number)[owner].to(scored.choices.device)].reshape(len(pictures), -1)
                self.held.put("answer", question.about, pictures, scored.answer[torch.from_numpy(asks)].float())
                self.held.put("said", question.about, pictures, scores.argmax(dim=1, keepdim=True))

    def _vision(self, site: str, tokens: Float[Tensor, "row token dim"]) -> None:
        exact = tokens.float()
        put, rows = self.held.put, torch.arange(len(tokens), device=tokens.device)
        put("mean", site, self.pictures, exact.mean(dim=1))
        put("largest", site, self.pictures, exact.amax(dim=1))
        drawn = torch.from_numpy((self.draws[self.pictures, 0] * tokens.shape[1]).astype(int)).to(tokens.device)
        put("one_vision", site, self.pictures, exact[rows, drawn])
        put("likeness", site, self.pictures, mean_pairwise_cosine(exact)[:, None])
        chosen = np.array([number for number, picture in enumerate(self.pictures) if int(picture) in self.ranked], dtype=int)
        rank = torch.full((len(tokens), 1), torch.nan)
        if len(chosen):
            rank[chosen, 0] = effective_rank(exact[torch.from_numpy(chosen).to(exact.device)]).cpu()
        put("rank", site, self.pictures, rank)
        if site in self.held.token_sites:
            self._tokens(site, exact)

    def _text(self, site: str, hidden: Float[Tensor, "row token dim"]) -> None:
        text = self.batch.text
        count = text.sum(dim=1)
        mean = (hidden.float() * text[..., None]).sum(dim=1) / count[:, None]
        self.held.put("mean_text", site, self.pictures, mean)
        drawn = (torch.from_numpy(self.draws[self.pictures, 1]).to(count.device) * count).long()
        place = (text.cumsum(dim=1) == drawn[:, None] + 1).int().argmax(dim=1)
        self.held.put("one_text", site, self.pictures, hidden[torch.arange(len(hidden), device=place.device), place].float())

    def _tokens(self, site: str, tokens: Float[Tensor, "row token dim"]) -> None:
        channels = min(tokens.shape[2], MOST_CHANNELS)
        most = MOST_TOKEN_BYTES // (2 * tokens.shape[1] * channels)
        kept = self.pictures < most
        if kept.any():
            self.held.put("tokens", site, self.pictures[kept], self._projected(tokens)[torch.from_numpy(kept).to(tokens.device)])

    def _projected(self, tokens: Float[Tensor, "row token dim"]) -> Float[Tensor, "row token channel"]:
        dim = tokens.shape[2]
        if dim <= MOST_CHANNELS:
            return tokens
        if dim not in self.projections:
            draw = np.random.default_rng(dim).standard_normal((dim, MOST_CHANNELS)) / np.sqrt(MOST_CHANNELS)
            self.projections[dim] = torch.from_numpy(draw).to(tokens)
        return tokens @ self.projections[dim]
