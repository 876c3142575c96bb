"""Two lenses that put hidden states into words: the logit lens, and LatentLens.

Logit lens (nostalgebraist 2020): the model's own final norm and output head applied to the state of any layer; the words are the most
probable tokens. LatentLens (Krojer et al. 2026, arXiv 2602.00462): the words are those of the contextual text states that are nearest by
cosine. `TextBank` says what is the paper's and what is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals.sentences import Sentences, spans_of
from theodolite.models.exported.layout import NONE, Layout
from theodolite.models.forward import base_model, run_forward
from theodolite.models.head import logits_of
from theodolite.models.pass_inputs import PassInputs
from theodolite.models.taps import touching

FIRST_POSITION = 2  # of a text; states before it are dominated by the beginning of the sequence
MOST_CONTEXTS = 20  # of one word
MOST_TOKENS = 512  # of a sentence
SENTENCES_AT_ONCE = 32
MOST_BANK_BYTES = 2**30
MOST_SCORES = 2**25  # of entries that tokens are compared with at once
PAPER_LAYERS = (1, 2, 4, 8, 16, 24)


@torch.no_grad()
def logit_top(model: Any, hidden: Float[Tensor, "token dim"], k: int) -> tuple[Int[Tensor, "token k"], Float[Tensor, " token"]]:
    """The most probable tokens of each hidden state by the model's own head, and the probability of the first, 0 to 1."""
    rows = max(1, MOST_SCORES // int(base_model(model).config.get_text_config().vocab_size))
    parts = [_most_probable(logits_of(model, part), k) for part in torch.split(hidden, rows)]
    return torch.cat([tokens for tokens, _ in parts]), torch.cat([strength for _, strength in parts])


def _most_probable(logits: Float[Tensor, "token vocabulary"], k: int) -> tuple[Int[Tensor, "token k"], Float[Tensor, " token"]]:
    top = logits.topk(min(k, logits.shape[1]), dim=1)
    return top.indices, (top.values[:, 0] - logits.logsumexp(dim=1)).exp()


def paper_layers(num_layers: int) -> tuple[int, ...]:
    """The layers of a language model whose text states LatentLens compares with: 1, 2, 4, 8, 16, 24 and the last two before the last."""
    chosen = {*PAPER_LAYERS, num_layers - 2, num_layers - 1}
    return tuple(sorted(layer for layer in chosen if 0 < layer < num_layers)) or (1,)


@dataclass(frozen=True, eq=False)
class TextBank:
    """Contextual states of words in sentences, by layer of the model's own language part, without pictures.

    From the paper (section 3.2, and the authors' released code): the text goes through the model's own language part; states
    are outputs of blocks, before the final norm, of layers 1, 2, 4, 8, 16, 24 and the last two before the last; positions 0 and 1 are left
    out; a word keeps at most 20 contexts; vision tokens of *any* layer are compared with the text states of *all* these layers by plain
    cosine, and the k nearest of all (5) describe a token.

    Otherwise here: a few hundred sentences of our own, not about three million phrases of Visual Genome; a word's state is that of its
    last piece, the first at which a causal model has read the whole word, where the paper keeps each piece (so a neighbour is a word, not
    a piece); of equal beginnings only the first is kept; the first 20 contexts, not a random sample; every layer's vision tokens are read,
    not only those of the same list; single precision, not 8 bits; and no judge model says whether the words fit the picture: they are
    compared with the picture's factors. PaliGemma reads the sentences as it reads prompts, in both directions.

    `vectors` are unit vectors by layer, all layers with the same states in the same order; `words` and `lines` name each state.
    """

    layers: tuple[str, ...]
    words: tuple[str, ...]
    lines: tuple[int, ...]
    vectors: tuple[Float[Tensor, "state dim"], ...]

    @property
    def entries(self) -> tuple[str, ...]:
        """The word of each entry that `top` numbers: all states of the first layer, then those of the next."""
        return self.words * len(self.layers)

    @torch.no_grad()
    def top(self, hidden: Float[Tensor, "token dim"], k: int) -> tuple[Int[Tensor, "token k"], Float[Tensor, " token"]]:
        """The k nearest entries of each hidden state over all layers, and the cosine with the first, -1 to 1."""
        parts = [self._nearest(part, k) for part in torch.split(F.normalize(hidden.float(), dim=1), max(1, MOST_SCORES // len(self.words)))]
        return torch.cat([entries for entries, _ in parts]), torch.cat([cosine for _, cosine in parts])

    def _nearest(self, unit: Float[Tensor, "token dim"], k: int) -> tuple[Int[Tensor, "token k"], Float[Tensor, " token"]]:
        cosines, entries = [], []
        for number, vectors in enumerate(self.vectors):  # the nearest of all layers are among the k nearest of each
            top = (unit @ vectors.T).topk(min(k, len(self.words)), dim=1)
            cosines.append(top.values)
            entries.append(top.indices + number * len(self.words))
        best = torch.cat(cosines, dim=1).topk(min(k, len(self.entries)), dim=1)
        return torch.cat(entries, dim=1).gather(1, best.indices), best.values[:, 0]


@dataclass(frozen=True)
class Context:
    """A word in a sentence: its state is at this position of the sentence's tokens."""

    word: str
    line: int
    position: int


def contexts_of(tokenizer: Any, sentences: Sentences) -> tuple[list[list[int]], list[Context]]:
    """The token ids of each sentence, cut at 512, and the words in context whose states are kept, in order.

    A word is that of its last piece. Left out are words with an unknown or a special token, those at positions 0 and 1, a repetition of
    the same beginning of a sentence, and contexts beyond 20 of a word.
    """
    special = {*tokenizer.all_special_ids, tokenizer.unk_token_id}
    encoded = tokenizer(list(sentences.lines), return_offsets_mapping=True, truncation=True, max_length=MOST_TOKENS)
    ids: list[list[int]] = [list(each) for each in encoded["input_ids"]]
    contexts: list[Context] = []
    counts: dict[str, int] = {}
    beginnings: set[tuple[int, ...]] = set()
    for line, (text, tokens, offsets) in enumerate(zip(sentences.lines, ids, encoded["offset_mapping"], strict=True)):
        for word, start, end in spans_of(text):
            inside = [place for place, (first, last) in enumerate(offsets) if first < end and last > start and first < last]
            if not inside or inside[-1] < FIRST_POSITION or special & {tokens[place] for place in inside}:
                continue
            beginning = tuple(tokens[: inside[-1] + 1])
            if beginning in beginnings or counts.get(word, 0) == MOST_CONTEXTS:
                continue
            beginnings.add(beginning)
            counts[word] = counts.get(word, 0) + 1
            contexts.append(Context(word, line, inside[-1]))
    return ids, contexts


def read_bank(asker: LocalAsker, sentences: Sentences, layers: Sequence[str]) -> TextBank | None:
    """The bank of these sentences at these layers; None where the tokenizer knows none of their words.

    Of more states than fit in 1 GiB the first are kept, with a notice of the asker. Raises `RuntimeError` where memory runs out.
    """
    ids, contexts = contexts_of(asker.processor.tokenizer, sentences)
    dim = int(asker.base.config.get_text_config().hidden_size)
    most = max(1, MOST_BANK_BYTES // (4 * dim * len(layers)))
    if len(contexts) > most:
        asker.notices.append(f"of {len(contexts):,} words in context the first {most:,} are compared with: more do not fit into 1 GiB")
        contexts = contexts[:most]
    if not contexts:
        return None
    vectors = {layer: torch.empty(len(contexts), dim, device=asker.base.device) for layer in layers}
    for numbers, states in _states(asker, ids, contexts, layers):
        for layer, values in states.items():
            vectors[layer][numbers] = F.normalize(values.float(), dim=1)
    words, lines = tuple(each.word for each in contexts), tuple(each.line for each in contexts)
    return TextBank(tuple(layers), words, lines, tuple(vectors[layer] for layer in layers))


@torch.no_grad()
def _states(
    asker: LocalAsker, ids: Sequence[Sequence[int]], contexts: Sequence[Context], layers: Sequence[str]
) -> Iterator[tuple[Int[Tensor, " part"], dict[str, Float[Tensor, "part dim"]]]]:
    """Numbers of contexts and their states by layer, batch by batch of sentences of similar length."""
    of_line: dict[int, list[int]] = {}
    for number, context in enumerate(contexts):
        of_line.setdefault(context.line, []).append(number)
    lines = sorted(of_line, key=lambda line: len(ids[line]))
    for start in range(0, len(lines), SENTENCES_AT_ONCE):
        chosen = lines[start : start + SENTENCES_AT_ONCE]
        inputs = _text_inputs(asker, [ids[line] for line in chosen])
        numbers = torch.tensor([number for line in chosen for number in of_line[line]], device=asker.base.device)
        places = [(row, contexts[number].position) for row, line in enumerate(chosen) for number in of_line[line]]
        row, position = torch.tensor(places, device=asker.base.device).unbind(1)
        states: dict[str, Tensor] = {}

        def keep(layer: str, states: dict[str, Tensor] = states, row: Tensor = row, position: Tensor = position) -> Any:
            return lambda hidden: states.update({layer: hidden[row, position]})

        with touching(asker.base, {layer: keep(layer) for layer in layers}):
            run_forward(asker.model, inputs, asker.adaptation)
        yield numbers, states


def _text_inputs(asker: LocalAsker, rows: Sequence[Sequence[int]]) -> PassInputs:
    """Sentences as rows, padded on the right, without pictures and without logits."""
    width = max(map(len, rows))
    pad = asker.processor.tokenizer.pad_token_id or 0
    ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
    sample = torch.tensor([[number] * len(row) + [NONE] * (width - len(row)) for number, row in enumerate(rows)])
    zeros = torch.zeros_like(sample)
    layout = Layout(sample, zeros, torch.full_like(sample, NONE), torch.zeros(*sample.shape, 2, dtype=torch.long))
    return PassInputs(ids.to(asker.base.device), layout.to(asker.base.device), {})
