"""A pretrained tower and a pretrained language model joined into a stock LLaVA, weights as they were, pictures in the template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers as hf
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from helpers.joinable_parts import TEMPLATE, save_language_model, save_tower
from theodolite.data.packing import PackingCollator
from theodolite.data.sources import TrainingExample
from theodolite.models.construction.join import join_vlm, with_pictures
from theodolite.models.exported.grids import picture_grids
from theodolite.models.forward import Adaptation, adapt
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import Language
from theodolite.records.errors import BadInput


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


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_weights_that_another_process_has_read_are_joined_without_values(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cpu_ram_efficient_loading`: weights may stay on the meta device, and accelerate finds parameters by their addresses."""
    tower, language = save_tower(tmp_path / kind, kind), save_language_model(tmp_path / "language")
    expected = {name: value.shape for name, value in join_vlm(str(tower), str(language))[0].state_dict().items()}
    for loader in (hf.AutoModel, hf.AutoModelForCausalLM):
        stock = loader.from_pretrained
        monkeypatch.setattr(loader, "from_pretrained", lambda *args, stock=stock, **options: without_values(stock(*args, **options)))
    model, _ = join_vlm(str(tower), str(language))
    assert {name: value.shape for name, value in model.state_dict().items()} == expected
    addresses = {parameter.data_ptr() for parameter in model.parameters()}
    assert len(addresses) == len(list(model.parameters()))
    adapt(model, Adaptation("mixed", "2d"))


def without_values(model: torch.nn.Module) -> torch.nn.Module:
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, torch.nn.Parameter(parameter.to("meta")))
    return model


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


@pytest.mark.parametrize("num_rows", [10, 16, 8])
@pytest.mark.parametrize("tied", [False, True])
def test_the_picture_token_starts_as_the_mean_of_the_words_whatever_the_tables_length(tmp_path: Path, num_rows: int, tied: bool) -> None:
    """Ten words; a table of 16 rows has some for no word, one of 8 has too few."""
    folder = save_language_model(tmp_path / "language")
    config = hf.AutoConfig.from_pretrained(folder, vocab_size=num_rows, tie_word_embeddings=tied, eos_token_id=1)
    torch.manual_seed(0)
    language = hf.AutoModelForCausalLM.from_config(config)
    for table in (language.get_input_embeddings().weight, language.lm_head.weight):
        table.data[10:] = 5.0
    language.save_pretrained(folder)
    model, processor = join_vlm("patches:16/8", str(folder))
    assert processor.tokenizer.convert_tokens_to_ids("<image>") == model.config.image_token_id == 10
    own = min(num_rows, 10)
    for joined, table in zip(
        (model.get_input_embeddings().weight, model.lm_head.weight),
        (language.get_input_embeddings().weight, language.lm_head.weight),
        strict=True,
    ):
        assert len(joined) == max(num_rows, 11)
        assert torch.equal(joined[:own], table[:own])
        torch.testing.assert_close(joined[10], table[:own].mean(dim=0))
