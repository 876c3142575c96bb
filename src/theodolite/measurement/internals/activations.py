"""Reduced hidden states of a model: a few vectors per picture and site, computed batch by batch; full hidden states are not stored.

One pass over the pictures serves the ladder, likeness, geometry, gap and identifiability. The arrays are memory-mapped files, so memory
does not grow with the number of sites.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.asking.pictures import Pictures
from theodolite.asking.rows import Batch, TokenRow
from theodolite.asking.scored import Scored
from theodolite.measurement.internals.token_similarity import effective_rank, mean_pairwise_cosine
from theodolite.models.taps import layer_sites, touching
from theodolite.models.vision_features import VisionFeatures
from theodolite.records.errors import BadInput
from theodolite.records.progress import Progress, silent

# Kinds of vectors that are stored in half precision of a model in half precision; means of text are updated in place.
HALVED = ("mean", "largest", "one_vision", "one_text", "answer", "tokens")
MOST_CHANNELS = 256  # of single tokens that are stored
MOST_TOKEN_BYTES = 2**29  # per site


@dataclass(frozen=True)
class FactorQuestion:
    """A question about one picture: the factor that it asks for, its text and choices, and the true one of them.

    Without `about` the question only gives the pass its text, and its answer position is not read: a picture with no open question of its
    own. Without `truth` the true answer is the picture's value of the factor.
    """

    about: str | None
    text: str
    choices: tuple[str, ...]
    truth: str | None = None


class Activations:
    """Reduced hidden states by site, float32; row i is picture i of the pool, NaN where it was not captured.

    Sites: "encoder", "connector", "layer.1" ... "layer.L". Single tokens are stored at `token_sites`, in at most 256 channels (a random
    projection of more), for the first `num_tokened` pictures, as many as fit in 512 MiB a site; effective ranks for some pictures only.

    `half`: vectors are on disk in half precision, each divided by a power of two above its largest value, so that none overflows. That
    keeps 11 binary digits: all 8 that a bfloat16 model's tokens have.
    """

    def __init__(self, sites: Sequence[str], queries: Sequence[str], num_pictures: int, half: bool = False) -> None:
        self.half = half
        self._scales: dict[tuple[str, str], Float[np.ndarray, " picture"]] = {}
        self.sites, self.queries = tuple(sites), tuple(queries)
        self.token_sites: tuple[str, ...] = ()
        self.cells: Int[np.ndarray, "token 2"] | None = None
        self.num_pictures = self.num_tokened = num_pictures
        self._folder = Path(tempfile.mkdtemp(prefix="theodolite-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._arrays: dict[tuple[str, str], np.ndarray] = {}

    def mean(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """Mean over the picture's vision tokens."""
        return self._vectors("mean", site)

    def largest(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """Maximum over the picture's vision tokens, by channel."""
        return self._vectors("largest", site)

    def one_vision(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """One of the picture's vision tokens, drawn at random."""
        return self._vectors("one_vision", site)

    def one_text(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """One of the text tokens after the picture, drawn at random. Not at the encoder."""
        return self._vectors("one_text", site)

    def mean_text(self, site: str) -> Float[np.ndarray, "picture dim"]:
        """Mean of the text tokens after the picture. Not at the encoder."""
        return self._arrays["mean_text", site]

    def likeness(self, site: str) -> Float[np.ndarray, " picture"]:
        """Mean pairwise cosine of the picture's vision tokens, -1 to 1."""
        return self._arrays["likeness", site][:, 0]

    def rank(self, site: str) -> Float[np.ndarray, " picture"]:
        """Effective rank (RankMe) of the picture's vision tokens, 1 or more; NaN where it was not computed."""
        return self._arrays["rank", site][:, 0]

    def answer(self, query: str) -> Float[np.ndarray, "picture dim"]:
        """The last hidden state, after the final norm, at the position that predicts the answer to a query; NaN where it was not asked."""
        return self._vectors("answer", query)

    def tokens(self, site: str) -> Float[np.ndarray, "picture token channel"]:
        """Single vision tokens of the first `num_tokened` pictures."""
        return self._vectors("tokens", site)

    def chosen(self, query: str) -> Int[np.ndarray, " picture"]:
        """Index of the choice that the model gives to a query, -1 where it was not asked."""
        return self._arrays["chosen", query][:, 0]

    def _vectors(self, kind: str, site: str) -> Float[np.ndarray, "picture ..."]:
        array, scale = self._arrays[kind, site], self._scales.get((kind, site))
        return array if scale is None else array.astype(np.float32) * scale.reshape(-1, *[1] * (array.ndim - 1))

    def put(self, kind: str, site: str, pictures: Int[np.ndarray, " row"], values: Tensor) -> None:
        """Stores one row a picture."""
        if (kind, site) not in self._arrays:
            path = self._folder / f"{len(self._arrays)}.npy"  # numbered, since a query's name may not be a valid file name
            number = self.num_tokened if kind == "tokens" else self.num_pictures
            halved = self.half and kind in HALVED
            dtype = "int64" if kind == "chosen" else "float16" if halved else "float32"
            array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=(number, *values.shape[1:]))
            array[:] = -1 if kind == "chosen" else np.nan
            self._arrays[kind, site] = array
            if halved:
                self._scales[kind, site] = np.ones(number, dtype=np.float32)
        exact = values.detach().cpu().numpy()
        if (scales := self._scales.get((kind, site))) is not None:
            scale = np.ldexp(np.float32(1), np.frexp(np.abs(exact).reshape(len(exact), -1).max(axis=1))[1])
            scales[pictures], exact = scale, exact / scale.reshape(-1, *[1] * (exact.ndim - 1))
        self._arrays[kind, site][pictures] = exact


def refuse_small_disk(num_bytes: int, num_pictures: int) -> None:
    """Raises `BadInput` where the folder of temporary files has no room for so many bytes."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if num_bytes > free:
        raise BadInput(
            f"the hidden states of {num_pictures:,} pictures take {num_bytes / 2**30:.1f} GiB in {folder}, where {free / 2**30:.1f} GiB "
            "are free; set TMPDIR to a folder with more room, or measure fewer scenes"
        )


def _num_bytes(asker: LocalAsker, activations: Activations, num_tokens: int) -> int:
    """Estimated bytes of all arrays, with the encoder as wide as the language model."""
    dim, each = int(asker.base.config.get_text_config().hidden_size), 2 if activations.half else 4
    vectors = len(activations.sites) * (4 * each + 4) + len(activations.queries) * each  # text means are in single precision
    tokens = min(MOST_TOKEN_BYTES, activations.num_pictures * num_tokens * min(dim, MOST_CHANNELS) * 4) * each // 4
    return activations.num_pictures * dim * vectors + len(activations.token_sites) * tokens


def capture(
    asker: LocalAsker,
    pool: Pictures,
    questions: Mapping[int, Sequence[FactorQuestion]],
    ranked: Int[np.ndarray, " ranked"],
    seed: int,
    progress: Progress = silent,
) -> Activations:
    """Runs the model over pictures of the pool, each with its own questions (by picture), and stores the reductions.

    Where vision tokens attend to the question (PaliGemma), they are those under the picture's first question; a notice of the asker states
    that.
    """
    layers = layer_sites(asker.base)
    asked = [(picture, question) for picture in sorted(questions) for question in questions[picture]]
    queries = dict.fromkeys(question.about for _, question in asked if question.about is not None)
    # Pictures that no intervention has come last in the pool, and get no row.
    num_pictures, half = max(questions, default=-1) + 1, asker.base.dtype != torch.float32
    activations = Activations(("encoder", "connector", *layers), tuple(queries), num_pictures, half)
    activations.token_sites = tuple(dict.fromkeys(("connector", layers[len(layers) // 2 - 1], layers[-1])))
    model_inputs = asker.model_inputs(pool)
    refuse_small_disk(_num_bytes(asker, activations, model_inputs.num_tokens), num_pictures)
    grids = model_inputs.grids
    activations.cells = grids[0].numpy() if len(grids) == 1 else None
    reducer = _Reducer(activations, asker, asked, set(ranked.tolist()), np.random.default_rng([seed, 7]))
    asks = [Question(picture, question.text, question.choices) for picture, question in asked]
    if asker.sharing == "nothing" and asks:
        asker.notices.append(_first_question_notice([own[0].text for own in questions.values()]))

    def run(rows: Sequence[TokenRow]) -> tuple[int, list[BatchReduction]]:
        batch = asker.collate(rows, pool)
        vision_features = asker.encode_batch(batch, pool, patches=True)
        reducer.begin(batch, vision_features)
        with touching(asker.base, {site: reducer.tap(site) for site in layers}):
            scored = asker.score(batch, vision_features)
        reducer.answers(batch, scored)
        return len(batch.questions), reducer.reductions

    done = 0
    with torch.no_grad():
        for rows in asker.groups(pool, asks):
            for number, reductions in asker.fitting(rows, run):
                reducer.commit(reductions)
                done += number
                progress(done, len(asks))
    return activations


def _first_question_notice(first: Sequence[str]) -> str:
    others = "" if len(set(first)) == 1 else f", or {len(set(first)) - 1} others, each picture's own first question"
    return f"vision tokens are measured as they are under the question {first[0]!r}{others}"


@dataclass(frozen=True, eq=False)
class BatchReduction:
    """One reduction of one batch, one row a picture; `tokens` is the number of text tokens that each mean over text has."""

    kind: str
    site: str
    pictures: Int[np.ndarray, " row"]
    values: Tensor
    tokens: Int[np.ndarray, " row"] | None = None


class _Reducer:
    """Reduces one batch after another into the arrays. `asked` are all asks (picture, question), those of a picture together."""

    def __init__(
        self,
        activations: Activations,
        asker: LocalAsker,
        asked: Sequence[tuple[int, FactorQuestion]],
        ranked: set[int],
        rng: np.random.Generator,
    ) -> None:
        self.activations, self.asker, self.ranked = activations, asker, ranked
        self.about = [question.about for _, question in asked]
        self.first = np.array([number == 0 or asked[number - 1][0] != picture for number, (picture, _) in enumerate(asked)], dtype=bool)
        self.reductions: list[BatchReduction] = []
        self.counts: dict[str, Int[np.ndarray, " picture"]] = {}
        # Position of each picture's random token, as a fraction of its tokens: the same at all sites.
        self.draws = rng.random((activations.num_pictures, 2))
        self.projections: dict[int, Tensor] = {}

    def begin(self, batch: Batch, vision_features: VisionFeatures) -> None:
        """Starts a batch: reduces encoder, connector and text embeddings; drops the reductions of a failed attempt at it."""
        self.batch, self.pictures, self.reductions = batch, batch.pictures.numpy(), []
        # Rows whose vision tokens count: all, or the rows with a picture's first question where vision tokens attend to the question.
        first = batch.row_of_question.cpu().numpy()[self.first[np.array(batch.questions, dtype=np.int64)]]
        self.vision_rows = np.arange(len(self.pictures)) if self.asker.sharing != "nothing" else first
        assert vision_features.patches is not None
        self._vision("encoder", vision_features.patches)
        self._vision("connector", vision_features.tokens)
        self._text("connector", self.asker.base.get_input_embeddings()(batch.view.input_ids))

    def tap(self, site: str) -> Callable[[Tensor], None]:
        """A tap that reduces a layer's hidden states."""

        def reduce(hidden: Tensor) -> None:
            self._vision(site, hidden[self.batch.vision].reshape(len(hidden), -1, hidden.shape[-1]))
            self._text(site, hidden)

        return reduce

    def answers(self, batch: Batch, scored: Scored) -> None:
        """Hidden states at answer positions and the chosen answers, by query; questions may differ in their numbers of choices."""
        about = [self.about[number] for number in batch.questions]
        chosen = _largest(scored.choices, batch.question_of_choice, len(about))
        pictures = self.pictures[batch.row_of_question.cpu().numpy()]
        for query in dict.fromkeys(each for each in about if each is not None):
            asks = np.array([each == query for each in about], dtype=bool)
            self._add("answer", query, pictures[asks], scored.answer[torch.from_numpy(asks)].float())
            self._add("chosen", query, pictures[asks], chosen[torch.from_numpy(asks)][:, None])

    def commit(self, reductions: Sequence[BatchReduction]) -> None:
        """Stores a batch's reductions. The text mean of a picture in several rows is over the tokens of all of them."""
        for each in reductions:
            values = each.values
            if each.tokens is not None:
                counts = self.counts.setdefault(each.site, np.zeros(self.activations.num_pictures, dtype=np.int64))
                for row, (picture, number) in enumerate(zip(each.pictures.tolist(), each.tokens.tolist(), strict=True)):
                    if counts[picture]:
                        old = torch.from_numpy(self.activations.mean_text(each.site)[picture])
                        values[row] += (old - values[row]) * (counts[picture] / (counts[picture] + number))
                    counts[picture] += number
                    self.activations.put(each.kind, each.site, each.pictures[row : row + 1], values[row : row + 1])
            else:
                self.activations.put(each.kind, each.site, each.pictures, values)

    def _add(self, kind: str, site: str, pictures: Int[np.ndarray, " row"], values: Tensor, tokens: Tensor | None = None) -> None:
        counts = None if tokens is None else tokens.cpu().numpy()
        self.reductions.append(BatchReduction(kind, site, pictures, values.detach().cpu(), counts))

    def _vision(self, site: str, tokens_by_row: Float[Tensor, "row token dim"]) -> None:
        if not len(self.vision_rows):
            return
        tokens = tokens_by_row[torch.from_numpy(self.vision_rows).to(tokens_by_row.device)].float()
        pictures = self.pictures[self.vision_rows]
        rows = torch.arange(len(tokens), device=tokens.device)
        drawn = torch.from_numpy((self.draws[pictures, 0] * tokens.shape[1]).astype(int)).to(tokens.device)
        self._add("mean", site, pictures, tokens.mean(dim=1))
        self._add("largest", site, pictures, tokens.amax(dim=1))
        self._add("one_vision", site, pictures, tokens[rows, drawn])
        self._add("likeness", site, pictures, mean_pairwise_cosine(tokens)[:, None])
        chosen = np.array([number for number, picture in enumerate(pictures) if int(picture) in self.ranked], dtype=int)
        rank = torch.full((len(tokens), 1), torch.nan)
        if len(chosen):
            rank[chosen, 0] = effective_rank(tokens[torch.from_numpy(chosen).to(tokens.device)]).cpu()
        self._add("rank", site, pictures, rank)
        if site in self.activations.token_sites:
            most = max(1, MOST_TOKEN_BYTES // (4 * tokens.shape[1] * min(tokens.shape[2], MOST_CHANNELS)))
            self.activations.num_tokened = min(self.activations.num_tokened, most)
            first = pictures < self.activations.num_tokened
            if first.any():
                self._add("tokens", site, pictures[first], self._projected(tokens[torch.from_numpy(first).to(tokens.device)]))

    def _text(self, site: str, hidden: Float[Tensor, "row token dim"]) -> None:
        text = self.batch.text
        count = text.sum(dim=1)
        # Not a product with the mask: hidden states at padding may be non-finite.
        mean = torch.where(text[..., None], hidden, 0).float().sum(dim=1) / count[:, None]
        self._add("mean_text", site, self.pictures, mean, count)
        drawn = (torch.from_numpy(self.draws[self.pictures, 1]).to(count.device) * count).long()
        place = (text.cumsum(dim=1) == drawn[:, None] + 1).int().argmax(dim=1)
        self._add("one_text", site, self.pictures, hidden[torch.arange(len(hidden), device=place.device), place].float())

    def _projected(self, tokens: Float[Tensor, "row token dim"]) -> Float[Tensor, "row token channel"]:
        dim = tokens.shape[2]
        if dim <= MOST_CHANNELS:
            return tokens
        if dim not in self.projections:
            draw = np.random.default_rng(dim).standard_normal((dim, MOST_CHANNELS)) / np.sqrt(MOST_CHANNELS)
            self.projections[dim] = torch.from_numpy(draw).to(tokens)
        return tokens @ self.projections[dim]


def _largest(scores: Float[Tensor, " choice"], owner: Int[Tensor, " choice"], num_questions: int) -> Int[Tensor, " question"]:
    """For each question, the index of the largest score among its own choices, the first of equals."""
    exact, owners = scores.detach().cpu(), owner.cpu()
    return torch.stack([exact[owners == question].argmax() for question in range(num_questions)])
