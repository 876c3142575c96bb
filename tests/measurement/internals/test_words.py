"""Vision tokens in words: planted words are found and shares have known values, and both lenses equal a computation by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from torch import nn

from helpers.family_askers import built
from helpers.measure_contexts import array_context
from helpers.planted_vlm import SPACE, Planted, planted_vlm
from helpers.tiny_families import NAMES, TEXT, TOWER, VOCABULARY, spread
from helpers.tiny_llava import tiny_vlm
from theodolite.asking.answer import Question
from theodolite.asking.local import LocalAsker
from theodolite.measurement.internals import lenses as lens_module
from theodolite.measurement.internals.context import MeasureContext, questions_of
from theodolite.measurement.internals.lenses import Context, TextBank, contexts_of, logit_top, paper_layers, read_bank
from theodolite.measurement.internals.naming import shown_token, text_naming, vocabulary_naming
from theodolite.measurement.internals.sentences import BUILT_IN, Sentences, read_sentences, words_of
from theodolite.measurement.internals.words import factor_words, latent_lens, logit_lens, measure_words, numbered_cells, word_pictures
from theodolite.measurement.pairs.interventions import interventions_of
from theodolite.measurement.pairs.plan import Plan, plan_world
from theodolite.models.head import logits_of
from theodolite.models.taps import touching
from theodolite.records.errors import BadInput
from theodolite.records.words import Lens, Words
from theodolite.worlds.easy_vqa.data import SPACE as EASY
from theodolite.worlds.openmoji.names import CLOSED, COLOURS
from theodolite.worlds.shapes.world import SPACE as SHAPES
from theodolite.worlds.shapes.world import Shapes
from theodolite.worlds.world import World


class WordOfLevel(nn.Module):
    """A connector that reads a picture's level of a factor from the mean of its channel, and gives a word's own input embedding."""

    def __init__(self, factor: str, embeddings: torch.Tensor) -> None:
        super().__init__()
        self.channel, self.embeddings = SPACE.index(factor), embeddings

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        channels = patches.unflatten(-1, (3, -1)).mean(dim=(1, 3))
        levels = ((channels[:, self.channel] * 127.5 + 127.5 - 32) / (192 / (len(self.embeddings) - 1))).round().long()
        return self.embeddings[levels][:, None].expand(-1, patches.shape[1], -1)


def saying(factor: str = "hue") -> tuple[Any, Any, Planted]:
    """A model whose vision tokens are the word of the picture's value, with a tied head and blocks that change nothing."""
    model, processor, world = planted_vlm({})
    decoder, generator = model.model.language_model, torch.Generator().manual_seed(1)
    for parameter in decoder.layers.parameters():
        parameter.data.zero_()
    decoder.norm.weight.data.fill_(1.0)
    decoder.norm.variance_epsilon = 1e-6
    vocabulary, width = decoder.embed_tokens.weight.shape
    words = torch.linalg.qr(torch.randn(width, vocabulary, generator=generator))[0].T.contiguous()
    decoder.embed_tokens.weight.data = words
    model.lm_head.weight = decoder.embed_tokens.weight
    ids = [processor.tokenizer.convert_tokens_to_ids(value) for value in SPACE[factor].values]
    model.model.multi_modal_projector = WordOfLevel(factor, 3 * words[ids])
    return model, processor, world


@cache
def planned(kind: type, policy: str, num_scenes: int) -> Plan:
    world = kind()
    return plan_world(world, world.policy(policy), num_scenes, 0, 64)


def unasked(model: Any, processor: Any, world: World, policy: str, num_scenes: int, **fields: Any) -> MeasureContext:
    """The context of a model whose questions were planned and not asked: words need no answers."""
    plan = planned(type(world), policy, num_scenes)
    values = {factor.name: factor.values for factor in world.space.factors}
    interventions, questions = interventions_of(plan.rows, values), questions_of(plan.rows, world)
    return MeasureContext(model, LocalAsker(model, processor), plan, plan.rows, interventions, {}, questions, 0.95, 0, **fields)


def measured(model: Any, processor: Any, world: World, policy: str, num_scenes: int, **fields: Any) -> Words:
    found = measure_words(unasked(model, processor, world, policy, num_scenes, **fields))
    assert found is not None
    return found


def test_words_put_in_place_of_vision_tokens_are_named_at_every_site() -> None:
    found = measured(*saying(), "hue", 24)
    assert found.num_pictures == 24 and set(found.logit.sites) == {"connector", *(f"layer.{number}" for number in range(1, 5))}
    for site in found.logit.sites.values():
        hue = site.factors["hue"]
        assert hue.share.value == 1.0 and hue.share.low is not None and hue.share.low > 0.8
        # Under other pictures' values a token is right as often as these have the same value.
        assert 0.1 < hue.baseline.value < 0.4 and hue.excess.low is not None and hue.excess.low > 0.4
        for other in ("tone", "glow"):
            assert (site.factors[other].excess.low or 0) <= 0


def test_the_shown_pictures_are_saved_with_words_named_tokens_and_places() -> None:
    context = unasked(*saying(), "hue", 24)
    found = measure_words(context)
    assert found is not None and len(found.shown) == 2
    for shown in found.shown:
        np.testing.assert_array_equal(context.shown_pictures[shown.picture].shape, (64, 64, 3))
        assert shown.cells == tuple((0, row, column) for row in range(8) for column in range(8))
        logit = {each.site: each for each in shown.lenses if each.lens == "logit"}
        assert tuple(logit) == ("connector", "layer.1", "layer.2", "layer.3", "layer.4")
        for each in logit.values():
            assert len(each.words) == len(each.strength) == 64
            assert all(own.split(" ")[0] == shown.values["hue"] and len(own.split(" ")) == 5 for own in each.words)
            assert each.named["hue"] == tuple(range(64)) and each.named["tone"] == ()


def test_latent_lens_finds_the_words_of_a_text_that_has_them(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    words = [value for factor in SPACE.factors for value in factor.values]
    text.write_text("".join(f"what is its {value}\nwhich is {value}\n" for value in words), encoding="utf-8")
    found = measured(*saying(), "hue", 24, sentences=text)
    assert found.latent is not None and found.states is not None
    assert found.states.text == "text.txt" and found.states.num_sentences == 22 and found.states.layers == ("layer.1", "layer.2", "layer.3")
    for site in found.latent.sites.values():
        assert site.strength.value == pytest.approx(1, abs=1e-5) and sum(site.text_layers.values()) == pytest.approx(1)
        assert site.factors["hue"].share.value == 1.0 and site.factors["hue"].excess.value > 0.5


def test_values_without_words_are_left_out_and_said() -> None:
    found = measured(*saying(), "hue", 24)
    assert found.latent is not None, "the sentences have some of the few words that this model knows"
    # Amber and denim are in no sentence of the package.
    assert found.latent.unnamed["hue"] == SPACE["hue"].values and "hue" in found.latent.left_out
    assert all("hue" not in site.factors for site in found.latent.sites.values())
    assert found.logit.unnamed == {} and found.logit.left_out == {}


def excesses(lens: Lens) -> list[tuple[float, float]]:
    ends = [(one.excess.low, one.excess.value) for site in lens.sites.values() for one in site.factors.values()]
    return [(low, value) for low, value in ends if low is not None]


def test_an_untrained_model_names_no_value_above_its_baseline() -> None:
    found = measured(*tiny_vlm(), Shapes(), "shape,row", 24)
    assert found.latent is not None
    for lens in (found.logit, found.latent):
        own = excesses(lens)
        assert len(own) >= 24 and abs(np.mean([value for _, value in own])) < 0.01
        assert sum(low > 0 for low, _ in own) <= 0.1 * len(own)
        assert max(one.share.value for site in lens.sites.values() for one in site.factors.values()) > 0.02, "nothing to compare"


# The logit lens


def keeping(states: dict[str, torch.Tensor], site: str) -> Callable[[torch.Tensor], None]:
    return lambda hidden: states.update({site: hidden})


def hidden_by_hand(model: Any, asker: LocalAsker, pictures: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Vision tokens at each site from the library's own forward, its last hidden state, and its logits at the vision tokens."""
    (rows,) = asker.groups(pictures, [Question(0, "what colour", ("red",))])
    batch = asker.collate(rows, pictures)
    states: dict[str, torch.Tensor] = {}
    with (
        torch.no_grad(),
        touching(model, {site: lambda hidden, site=site: states.update({site: hidden}) for site in ("layer.1", "layer.2")}),
    ):
        arguments = {"input_ids": batch.view.input_ids, **asker.model_inputs(pictures).inputs(pictures[:1])}
        if asker.family.token_types:
            arguments[asker.family.token_types] = (
                batch.vision if asker.family.typed_tokens == "picture" else torch.zeros_like(batch.vision)
            ).long()
        output = model(**arguments, use_cache=False, output_hidden_states=True)
    vision = batch.vision[0]
    return {site: own[0, vision] for site, own in states.items()}, output.hidden_states[-1][0, vision], output.logits[0, vision]


@pytest.mark.contract("inside")
@pytest.mark.parametrize("name", NAMES)
def test_in_every_family_the_lens_is_the_library_s_own_norm_and_head(name: str) -> None:
    model, processor, pictures = built(name)
    asker = LocalAsker(model, processor)
    states, last, logits = hidden_by_hand(model, asker, pictures)
    language_model = model.get_submodule(asker.family.language_model)
    torch.testing.assert_close(language_model.norm(states["layer.2"]), last, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits_of(model, states["layer.2"]), logits, atol=1e-4, rtol=1e-4)
    by_hand = model.lm_head(language_model.norm(states["layer.1"]))
    torch.testing.assert_close(logits_of(model, states["layer.1"]), by_hand, atol=1e-5, rtol=1e-5)
    top, strength = logit_top(model, states["layer.1"], 5)
    assert torch.equal(top[:, 0], by_hand.argmax(dim=1))
    torch.testing.assert_close(strength, by_hand.softmax(dim=1).amax(dim=1), atol=1e-5, rtol=1e-5)


def capped(name: str) -> tuple[Any, np.ndarray]:
    """A model whose text configuration names a cap of its logits."""
    model, processor, pictures = built(name)
    if name == "gemma3":
        text = model.config.text_config.to_dict() | {"final_logit_softcapping": 0.5}
        config = hf.Gemma3Config(**{**model.config.to_dict(), "text_config": text})
    else:
        text = hf.Gemma2Config(num_hidden_layers=2, head_dim=16, query_pre_attn_scalar=16, final_logit_softcapping=0.5, **TEXT).to_dict()
        config = hf.PaliGemmaConfig(
            vision_config=hf.SiglipVisionConfig(image_size=32, vision_use_head=False, **TOWER), text_config=text,
            image_token_index=VOCABULARY["<image>"], projection_dim=TEXT["hidden_size"], hidden_size=TEXT["hidden_size"],
        )  # fmt: skip
    torch.manual_seed(0)
    found = type(model)(config).eval()
    for weight in found.parameters():
        spread(weight.data)
    return (found, processor), pictures


@pytest.mark.parametrize(("name", "is_capped"), [("paligemma", True), ("gemma3", False)])
def test_logits_are_capped_where_the_stock_forward_caps_them_and_not_elsewhere(name: str, is_capped: bool) -> None:
    (model, processor), pictures = capped(name)
    states, _, logits = hidden_by_hand(model, LocalAsker(model, processor), pictures)
    assert model.config.text_config.final_logit_softcapping == 0.5
    assert (float(logits.abs().max()) < 0.5) == is_capped
    torch.testing.assert_close(logits_of(model, states["layer.2"]), logits, atol=1e-4, rtol=1e-4)


def test_the_lens_reads_within_a_pass_what_it_reads_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_module, "MOST_SCORES", 500)  # a few tokens at a time
    model, processor, pictures = built("llava")
    asker = LocalAsker(model, processor)
    states, _, _ = hidden_by_hand(model, asker, pictures)
    (rows,) = asker.groups(pictures, [Question(0, "what colour", ("red",))])
    batch, within = asker.collate(rows, pictures), list[torch.Tensor]()

    def read(hidden: torch.Tensor) -> None:
        within.append(logit_top(model, hidden[0, batch.vision[0]], 5)[0])

    with torch.no_grad(), touching(model, {"layer.1": read}):
        asker.score(batch, asker.encode_batch(batch, pictures))
    expected = model.lm_head(model.model.language_model.norm(states["layer.1"])).topk(5, dim=1).indices
    assert torch.equal(within[0], expected)


def test_a_language_model_without_the_norm_is_refused_by_name() -> None:
    model, _ = tiny_vlm()
    model.model.language_model.last_norm = model.model.language_model.norm
    del model.model.language_model.norm
    with pytest.raises(BadInput, match="has no final norm 'norm'"):
        logits_of(model, torch.zeros(1, 32))


# LatentLens


@pytest.mark.contract("inside")
@pytest.mark.parametrize("name", NAMES)
def test_in_every_family_the_nearest_text_states_are_those_of_brute_force(name: str) -> None:
    model, processor, _ = built(name)
    asker = LocalAsker(model, processor)
    lines = ("what colour is the red blue round", "here is the original image", "yes the red", "the red and the round are blue")
    bank = read_bank(asker, Sentences("given", lines), ["layer.1", "layer.2"])
    assert bank is not None and set(bank.words) <= {word for line in lines for word in line.split()}
    # By hand: each sentence alone, without padding.
    expected, words = {"layer.1": list[torch.Tensor](), "layer.2": list[torch.Tensor]()}, []
    for line, text in enumerate(lines):
        positions = [place for place, _ in enumerate(text.split()) if place >= 2]
        states: dict[str, torch.Tensor] = {}
        ids = torch.tensor([processor.tokenizer(text)["input_ids"]])
        types = {} if asker.family.token_types is None else {asker.family.token_types: torch.zeros_like(ids)}
        with torch.no_grad(), touching(model, {site: keeping(states, site) for site in expected}):
            model(input_ids=ids, **types, use_cache=False)
        for place in positions:
            words.append((line, text.split()[place]))
            for site in expected:
                expected[site].append(states[site][0, place])
    assert list(zip(bank.lines, bank.words, strict=True)) == words
    tokens = torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
    every = torch.cat([torch.stack(own) for own in expected.values()])
    cosines = F.cosine_similarity(tokens[:, None].double(), every[None].double(), dim=2)
    entries, nearest = bank.top(tokens, 5)
    torch.testing.assert_close(nearest.double(), cosines.amax(dim=1), atol=1e-4, rtol=1e-4)
    picked = cosines.gather(1, entries)
    torch.testing.assert_close(picked, cosines.topk(5, dim=1).values, atol=1e-4, rtol=1e-4)
    assert [bank.entries[number] for number in entries[0]] == [(words * 2)[number][1] for number in cosines[0].topk(5).indices]


def test_the_layers_are_the_paper_s() -> None:
    assert paper_layers(32) == (1, 2, 4, 8, 16, 24, 30, 31)
    assert paper_layers(28) == (1, 2, 4, 8, 16, 24, 26, 27)
    assert (paper_layers(4), paper_layers(2), paper_layers(1)) == ((1, 2, 3), (1,), (1,))


def pieces_tokenizer() -> Any:
    """A tokenizer that splits some words into pieces, as byte-level ones do."""
    whole = ["Ġred", "Ġtri", "ang", "le", "Ġthe", "Ġhair", "Ġno", "ĠRed", "Ġcross", "Ġcrossing", "Ġsq", "Ġs"]
    letters = sorted({letter for word in whole for letter in word} | set("abcdefghijklmnopqrstuvwxyzS"))
    vocabulary = {piece: number for number, piece in enumerate([*letters, *whole])}
    grown = [(f"{word[:cut]}", word[cut]) for word in whole for cut in range(1, len(word))]
    merges = list(dict.fromkeys(grown))
    for left, right in merges:
        vocabulary.setdefault(left, len(vocabulary))
        vocabulary.setdefault(left + right, len(vocabulary))
    model = Tokenizer(BPE(vocab=vocabulary, merges=merges))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(tokenizer_object=model)


def test_a_word_in_pieces_has_one_state_at_its_last_and_is_named_whole() -> None:
    tokenizer = pieces_tokenizer()
    assert [tokenizer.decode([piece]) for piece in tokenizer(" triangle")["input_ids"]] == [" tri", "ang", "le"]
    sentences = Sentences("given", ("no red triangle the hair", "no red triangle the red"))
    ids, contexts = contexts_of(tokenizer, sentences)
    assert [each.word for each in contexts] == ["red", "triangle", "the", "hair", "red"], "the equal beginning counts once"
    assert contexts[1] == Context("triangle", 0, contexts[0].position + 3)
    assert tokenizer.decode(ids[0][: contexts[1].position + 1]) == "no red triangle"


def test_a_word_keeps_twenty_contexts_and_the_first_two_positions_none() -> None:
    _, processor, _ = built("llava")
    lines = tuple(f"red red {first} {second} blue" for first, second in product("abcdefgh", repeat=2))
    _, contexts = contexts_of(processor.tokenizer, Sentences("given", lines))
    assert sum(each.word == "blue" for each in contexts) == 20
    assert min(each.position for each in contexts) == 2 and "red" not in {each.word for each in contexts}


def test_more_states_than_fit_are_cut_with_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lens_module, "MOST_BANK_BYTES", 4 * 32 * 3)
    model, processor, _ = built("llava")
    asker = LocalAsker(model, processor)
    bank = read_bank(asker, Sentences("given", ("what colour is the red blue round",)), ["layer.1"])
    assert bank is not None and bank.words == ("is", "the", "red") and "first 3 are compared with" in asker.notices[0]
    assert read_bank(asker, Sentences("given", ("nothing known",)), ["layer.1"]) is None


# Naming


def named(table: Any, factor: str, *said: str) -> list[str]:
    """The values that these words name together."""
    numbers = np.array([table.words.index(word) for word in said])
    only_words = replace(table, says=np.eye(len(table.words), dtype=bool))
    named = only_words.named(only_words.said(numbers), factor)
    return [value for value, one in zip(table.values[factor], named, strict=True) if one]


def test_a_value_needs_all_of_its_words() -> None:
    values = {"hair": ("red hair", "no hair"), "tone": ("light", "medium-light")}
    table = text_naming(values, ["hair", "red", "light", "medium"])
    assert words_of("medium-light") == ("medium", "light") and not table.can_name("no hair") and table.can_name("red hair")
    whole = text_naming(values, ["hair", "red", "light", "medium", "no"])
    assert named(whole, "hair", "red", "light") == [] and named(whole, "hair", "red", "hair") == ["red hair"]
    assert named(whole, "tone", "light", "red") == ["light"] and named(whole, "tone", "medium", "light") == ["light", "medium-light"]


def vocabulary(values: dict[str, tuple[str, ...]]) -> dict[str, set[str]]:
    """What counts as each word in the vocabulary of pieces."""
    tokenizer = pieces_tokenizer()
    texts = [tokenizer.decode([number]) for number in range(len(tokenizer))]
    table = vocabulary_naming(values, texts, lambda text: tokenizer(text)["input_ids"])
    return {word: {texts[entry] for entry in np.flatnonzero(table.says[:, place])} for place, word in enumerate(table.words)}


def test_case_and_space_do_not_matter_and_a_split_word_is_said_by_its_first_piece() -> None:
    says = vocabulary({"colour": ("red", "reddish"), "shape": ("triangle", "square", "crossed"), "letter": ("S", "E")})
    assert says["red"] == {" red", " Red"}
    assert says["triangle"] == {" tri"}
    assert says["reddish"] == set(), "its first piece is the word red"
    assert says["square"] == set(), "two letters are too few"
    assert says["crossed"] == {" cross"}
    assert vocabulary({"shape": ("crossed", "crossbar")})["crossed"] == set(), "two shapes begin so"
    assert says["S"] == {"S"} and says["E"] == set(), "a small s is an ending"


def test_every_value_of_the_shipped_worlds_has_its_words_in_the_sentences() -> None:
    sentences = read_sentences()
    assert sentences.source == BUILT_IN and len(set(sentences.lines)) == len(sentences.lines) > 300
    counts: dict[str, int] = {}
    for line in sentences.lines:
        for word in words_of(line)[2:]:
            counts[word] = counts.get(word, 0) + 1
    spaces = [*SHAPES.factors, *EASY.factors]
    values = {value for factor in spaces if factor.name != "sheen" for value in factor.values} | {*COLOURS, *sum(CLOSED.values(), ())}
    assert {word: counts.get(word, 0) for value in values for word in words_of(value) if counts.get(word, 0) < 3} == {}


def test_a_text_file_is_read_by_lines_and_a_bad_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes("\ufeffThe cup is red.\r\n\n--\none\u2028two\n".encode())
    assert read_sentences(path) == Sentences("own.txt", ("The cup is red.", "one\u2028two"))
    for content, why in ((b"\xff\xfe", "UTF-8"), (b"\n--\n", "no words")):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=why):
            read_sentences(path)
    with pytest.raises(BadInput, match="cannot be read"):
        read_sentences(tmp_path / "none.txt")


@pytest.mark.parametrize(("text", "shown"), [(" red", "red"), ("\n\n", "↵"), ("  ", "␣"), ("", "·"), ("a b", "a␣b"), (" x\t", "x")])
def test_a_token_is_shown_without_white_space(text: str, shown: str) -> None:
    assert shown_token(text) == shown


# Shares


def test_the_baseline_is_the_mean_of_all_shuffles_between_scenes() -> None:
    rng = np.random.default_rng(0)
    shares, levels, scenes = rng.random((6, 3)), np.array([0, 1, 1, 2, 0, 0]), np.array([4, 4, 5, 6, 7, 8])
    found = factor_words(shares, levels, scenes, 0.95)
    own = [shares[row, levels[row]] for row in range(6)]
    others = [[shares[row, levels[other]] for other in range(6) if scenes[other] != scenes[row]] for row in range(6)]
    assert found.share.value == pytest.approx(np.mean(own), abs=1e-6)
    assert found.baseline.value == pytest.approx(np.mean([np.mean(each) for each in others]), abs=1e-6)
    assert found.excess.value == pytest.approx(found.share.value - found.baseline.value, abs=2e-6)
    assert (found.share.num_scenes, found.num_pictures) == (5, 6)


def test_pictures_are_the_first_of_the_first_scenes_and_tiles_are_grids_of_their_own() -> None:
    context = unasked(*tiny_vlm(), Shapes(), "shape,row", 24)
    pictures, scenes = word_pictures(context.interventions)
    assert scenes.tolist() == list(range(24)) and pictures.tolist() == sorted({int(each) for each in context.interventions["shape"].before})
    square = torch.cartesian_prod(torch.arange(2), torch.arange(2))
    assert numbered_cells([square]) == ((0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1))
    assert [cell[0] for cell in numbered_cells([square, square])] == [0] * 4 + [1] * 4
    assert [cell[0] for cell in numbered_cells([torch.cat([square, square])])] == [0] * 4 + [1] * 4
    assert measure_words(array_context({}, None)) is None


def test_memory_that_runs_out_halves_the_rows_and_changes_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, own = measured(*tiny_vlm(), Shapes(), "shape,row", 24), LocalAsker.score
    calls = []

    def cramped(self: LocalAsker, batch: Any, vision_features: Any, edits: Any = None) -> Any:
        scored = own(self, batch, vision_features, edits)
        calls.append(len(batch.pictures))
        if len(batch.pictures) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return scored

    context = unasked(*tiny_vlm(), Shapes(), "shape,row", 24)
    monkeypatch.setattr(LocalAsker, "score", cramped)
    halved = measure_words(context)
    assert max(calls) > 2 and halved is not None and halved.latent is not None
    for site, words in whole.logit.sites.items():
        for factor, one in words.factors.items():
            assert halved.logit.sites[site].factors[factor].share.value == pytest.approx(one.share.value, abs=1e-6)
            assert sum(halved.latent.sites[site].text_layers.values()) == pytest.approx(1)


def test_lenses_say_what_their_entries_are() -> None:
    model, processor = tiny_vlm()
    asker, values = LocalAsker(model, processor), {"colour": ("red", "blue")}
    logit = logit_lens(asker, values)
    assert len(logit.shown) == model.lm_head.weight.shape[0] == len(logit.naming.says)
    bank = TextBank(("layer.1", "layer.2"), ("red", "cup"), (0, 0), (torch.eye(2), -torch.eye(2)))
    latent = latent_lens(bank, values)
    entries, cosines = latent.top(torch.tensor([[1.0, 0.2], [-3.0, 0.0]]), 3)
    assert [latent.shown[entry] for entry in entries[0].tolist()[:2]] == ["red", "cup"]
    assert entries[1, 0] == 2 and cosines[1] == pytest.approx(1), "the second layer's first state is the nearest"
