"""The small LLaVA of tours and tests: a frozen front end, a connector, a tiny decoder and a word-level tokenizer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

from theodolite.models.construction.frontends import PATCH, SIZE, FrontEnd, front_end, image_processor
from theodolite.models.exported.connectors import CONNECTORS, Connector, exchange_connector
from theodolite.records.errors import UnknownName

SPECIAL = ("<pad>", "<unk>", "<image>", "<answer>", "</s>")
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{{ '<answer>' if message['role'] == 'user' else '</s>' }}"
    "{% endfor %}"
)


@dataclass(frozen=True)
class DecoderSize:
    """Layers, width and heads of the decoder; the feed-forward layers are `expansion` times as wide.

    `initial_std` is the standard deviation of the initial weights, by default the usual 0.02. It matters: from small weights the decoder
    learns the one easiest feature, from larger ones it learns faster and uses several at once (docs/results/log.md).
    """

    num_layers: int = 4
    width: int = 128
    num_heads: int = 4
    expansion: int = 3
    initial_std: float = 0.02


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token for each word and punctuation mark in the texts, lower-cased."""
    splitter, lower = pre_tokenizers.Whitespace(), normalizers.Lowercase()
    words = {word for text in texts for word, _ in splitter.pre_tokenize_str(lower.normalize_str(text))}
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *sorted(words)))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = lower, splitter
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="</s>",
        additional_special_tokens=["<image>", "<answer>"],
        padding_side="left",
    )


def build_vlm(
    texts: Iterable[str], seed: int, decoder: DecoderSize = DecoderSize(), frontend: FrontEnd = "conv", connector: Connector = "mlp"
) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """A LLaVA with a frozen front end and random connector and decoder, and its processor. `texts` contain the whole vocabulary.

    With one seed, the initial weights outside the connector do not depend on the connector, and those of the decoder are the same for all
    front ends of one architecture. Raises `UnknownName` for an unknown connector.
    """
    connector = connector_named(connector)
    tokenizer = word_tokenizer(texts)
    processor = LlavaProcessor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        image_token="<image>",
        chat_template=CHAT_TEMPLATE,
    )
    tower = front_end(frontend, seed)
    text_config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=decoder.width,
        intermediate_size=decoder.expansion * decoder.width,
        num_hidden_layers=decoder.num_layers,
        num_attention_heads=decoder.num_heads,
        num_key_value_heads=decoder.num_heads,
        max_position_embeddings=512,
        initializer_range=decoder.initial_std,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    config = LlavaConfig(
        vision_config=tower.config,
        text_config=text_config,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIZE // PATCH) ** 2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        exchange_connector(model, connector)
    model.model.vision_tower.load_state_dict(tower.state_dict())
    model.model.vision_tower.requires_grad_(False)
    return model, processor


def connector_named(name: str) -> Connector:
    """The name, if it is a connector's. Raises `UnknownName` otherwise."""
    if name not in CONNECTORS:
        raise UnknownName("connector", name, tuple(CONNECTORS))
    return name  # type: ignore[return-value]
