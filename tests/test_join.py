"""A pretrained tower and a pretrained language model joined into a stock LLaVA, weights as they were, pictures in the template."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.construction.join import join_vlm, with_pictures
from theodolite.models.exported.grids import picture_grids
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput

TEMPLATE = "{% for message in messages %}{{ message['role'] + ' : ' + message['content'] + ' </s> ' }}{% endfor %}" + (
    "{% if add_generation_prompt %}{{ 'assistant : ' }}{% endif %}"
)
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
TEXT = {**{key: VISION[key] for key in ("hidden_size", "intermediate_size", "num_attention_heads")}, "num_hidden_layers": 1}


def save_tower(folder: Path, kind: str) -> Path:
    config, model = (hf.CLIPConfig, hf.CLIPModel) if kind == "clip" else (hf.SiglipConfig, hf.SiglipModel)
    text = {**TEXT, "vocab_size": 20, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    model(config(text_config=text, vision_config=VISION)).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor = (
        hf.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=size) if kind == "clip" else hf.SiglipImageProcessorPil(size=size)
    )
    processor.save_pretrained(folder)
    return folder


WORDS = ("<unk>", "</s>", "user", "assistant", ":", "what", "is", "it", "round", "two")
LLAMA = hf.LlamaConfig(**TEXT, num_key_value_heads=1, bos_token_id=None, eos_token_id=1, tie_word_embeddings=False)


def save_language_model(
    folder: Path, template: str | None = TEMPLATE, config: hf.PreTrainedConfig = LLAMA, words: tuple[str, ...] = WORDS
) -> Path:
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", pad_token="</s>")
    fast.chat_template = template
    fast.save_pretrained(folder)
    config = copy.deepcopy(config)
    config.vocab_size = len(words)
    torch.manual_seed(3)
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "strategy", "layer"), [("clip", "default", -2), ("siglip", "full", -1)])
def test_both_keep_their_weights_and_pictures_are_read(tmp_path: Path, kind: str, strategy: str, layer: int) -> None:
    tower, language = save_tower(tmp_path / kind, kind), save_language_model(tmp_path / "language")
    model, processor = join_vlm(str(tower), str(language))
    assert (model.config.vision_feature_select_strategy, model.config.vision_feature_layer) == (strategy, layer)
    alone = hf.AutoModelForCausalLM.from_pretrained(language)
    ids = torch.tensor([[2, 4, 5, 6]])
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits[..., :10], alone(input_ids=ids).logits)
        pixels = torch.rand(1, 3, 32, 32)
        whole = hf.AutoModel.from_pretrained(tower)
        assert torch.equal(model.model.vision_tower(pixels).last_hidden_state, whole.vision_model(pixels).last_hidden_state)
    (grid,) = picture_grids(model.config, {"pixel_values": pixels})
    assert len(grid) == model.config.image_seq_length == 16
    reader = PictureReader(processor.image_processor, processor.tokenizer, model.config)
    collator = PackingCollator(processor.tokenizer, reader, max_length=64, chat_template=processor.chat_template)
    user = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " what is it"}]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "round"}]}
    batch = collator([TrainingExample("a", (Image.new("RGB", (50, 40)),), ((user, answer),))])
    assert batch["labels"].tolist() == [8, 1]
    assert torch.isfinite(Language()(model, batch, 0)["language"].total)


def test_plain_texts_go_through_the_template_as_before() -> None:
    tokenizer = hf.PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>")))
    messages = [{"role": "user", "content": "what"}, {"role": "assistant", "content": "two"}]
    texts = [tokenizer.apply_chat_template(messages, chat_template=one, tokenize=False) for one in (TEMPLATE, with_pictures(TEMPLATE))]
    assert texts[0] == texts[1] == "user : what </s> assistant : two </s> "


def test_a_language_model_without_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no chat template; take an instruction-tuned"):
        join_vlm("unused", str(save_language_model(tmp_path / "language", None)))


def test_the_connector_is_drawn_from_the_seed_alone(tmp_path: Path) -> None:
    language = save_language_model(tmp_path / "language")

    def connector(encoder: str, seed: int) -> torch.Tensor:
        model, _ = join_vlm(encoder, str(language), seed=seed)
        return model.model.multi_modal_projector.linear_2.weight

    torch.manual_seed(0)
    first, state = connector("patches:16/8", 5), torch.random.get_rng_state()
    assert torch.equal(first, connector("patches:16/8", 5)) and not torch.equal(first, connector("patches:16/8", 6))
    assert torch.equal(state, torch.random.get_rng_state())
    assert 0.015 < float(first.detach().std()) < 0.025 and not model_is_meta(join_vlm("conv", str(language))[0])


def model_is_meta(model: torch.nn.Module) -> bool:
    return any(value.is_meta for value in (*model.parameters(), *model.buffers()))


def test_the_picture_token_starts_as_the_mean_of_all_others(tmp_path: Path) -> None:
    model, processor = join_vlm("patches:16/8", str(save_language_model(tmp_path / "language")))
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id == 10
    for table in (model.get_input_embeddings().weight, model.lm_head.weight):
        torch.testing.assert_close(table[10], table[:10].mean(dim=0))
