"""What vision tokens say in words, in a survey's record: logit lens and LatentLens, by site."""

from __future__ import annotations

from pydantic import Field

from theodolite.records.part import Estimate, Part


class FactorWords(Part):
    """How many of a picture's vision tokens name the picture's own value of a factor, at one site."""

    share: Estimate = Field(description="share of a picture's vision tokens whose words name its own value, mean over pictures, 0 to 1")
    baseline: Estimate = Field(
        description="the same tokens under the values of other pictures: mean share over the pictures of all other scenes, 0 to 1"
    )
    excess: Estimate = Field(description="share minus baseline, paired by picture, -1 to 1; 0: the words do not depend on the value")
    num_pictures: int = Field(description="pictures behind it: those whose value is known and can be named")


class SiteWords(Part):
    """Words of the vision tokens at one site."""

    strength: Estimate = Field(
        description="mean over vision tokens and pictures: of the logit lens the probability of the top word, 0 to 1; of LatentLens the "
        "cosine with the nearest text state, -1 to 1"
    )
    text_layers: dict[str, float] = Field(
        default={}, description="LatentLens: share of vision tokens whose nearest text state is of this layer, by layer; empty: logit lens"
    )
    factors: dict[str, FactorWords] = Field(description="by factor")


class Lens(Part):
    """One way to put vision tokens into words, at all sites."""

    sites: dict[str, SiteWords] = Field(description="by site: connector, layer.1 to the last layer")
    spellings: dict[str, tuple[str, ...]] = Field(
        description="by word of the factors' values, what counts as that word: of the logit lens the vocabulary's tokens, white space as "
        "signs; of LatentLens the word itself, where the text has it"
    )
    unnamed: dict[str, tuple[str, ...]] = Field(
        description="by factor, the values that this lens cannot name, since it lacks a word of them; their pictures are left out"
    )
    left_out: dict[str, str] = Field(description="factors that were not measured, each with the reason")


class TextStates(Part):
    """The contextual text states that LatentLens compares with."""

    text: str = Field(description="built in: the sentences that come with the package; else the name of the given file")
    text_sha256: str = Field(description="over the sentences, one a line")
    num_sentences: int = Field(description="sentences")
    num_states: int = Field(description="words in context, each one state a layer")
    num_words: int = Field(description="different words among them")
    layers: tuple[str, ...] = Field(description="layers whose states are compared with: nearest is the nearest in any of them")


class ShownLens(Part):
    """The words of one picture's vision tokens under one lens at one site."""

    lens: str = Field(description="logit or latent")
    site: str = Field(description="the site")
    words: tuple[str, ...] = Field(description="by vision token: its top words, the first first, with one space between them")
    strength: tuple[float, ...] = Field(description="by vision token: probability of the top word, or cosine with the nearest text state")
    named: dict[str, tuple[int, ...]] = Field(description="by factor, the numbers of the tokens that name the picture's value, from 0")


class ShownPicture(Part):
    """A picture with the words of its vision tokens at some sites."""

    scene_id: int = Field(description="number of the base scene, as in rows.parquet")
    picture: str = Field(description="file of the picture, relative to the record's folder")
    values: dict[str, str] = Field(description="the picture's value of each factor, where known")
    cells: tuple[tuple[int, int, int], ...] = Field(
        description="by vision token: its grid (a tile or a view of the picture), row and column, from 0"
    )
    lenses: tuple[ShownLens, ...] = Field(description="by lens and site")


class Words(Part):
    """Vision tokens in words, by site. That tokens name a value does not show that answers depend on them: compare with patch and erase."""

    top_k: int = Field(description="words of a token that count")
    num_scenes: int = Field(description="scenes, the first in order")
    num_pictures: int = Field(description="pictures of these scenes")
    num_tokens: int = Field(description="vision tokens of a picture")
    logit: Lens = Field(description="final norm and output head at every site (logit lens)")
    latent: Lens | None = Field(description="nearest contextual text states (LatentLens); null: the tokenizer has no words of the text")
    states: TextStates | None = Field(description="the text states of LatentLens; null with it")
    shown: tuple[ShownPicture, ...] = Field(description="the first pictures, never selected by their words")
