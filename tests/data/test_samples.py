"""Samples: which tokens are trained, how conversations share pictures, what is cut, and what is left out and why."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers.conversations import IMAGE, LINES, picture, says
from helpers.tiny_families import BUILDERS, NAMES, VOCABULARY, tokenizer
from theodolite.data.drops import Dropped, Unfit
from theodolite.data.samples import Sample, SampleMaker, open_picture
from theodolite.data.sources import TrainingExample
from theodolite.models.conversation_tokenizer import ConversationTokenizer
from theodolite.models.families import image_token_id
from theodolite.models.pictures import PictureReader
from theodolite.objectives.language import IGNORE
from theodolite.records.errors import BadInput

PICTURE = ["<image>"] * 16


def maker(max_length: int = 500, template: str | None = LINES, name: str = "llava", **more: Any) -> SampleMaker:
    """A maker of the tiny family's samples; a picture has 16 tokens in LLaVA."""
    config, _, image_processor = BUILDERS[name](1)
    words = tokenizer(name)
    return SampleMaker(words, PictureReader(image_processor, words, config), max_length, template, **more)


def example(*conversations: Any, num_pictures: int = 1, key: str = "key") -> TrainingExample:
    return TrainingExample(key, tuple(picture(seed) for seed in range(num_pictures)), conversations)


def words(sample: Sample) -> list[str]:
    return tokenizer("llava").convert_ids_to_tokens(list(sample.tokens))


def trained(sample: Sample) -> dict[int, str]:
    """What is to be said after each place, in words, where something is trained."""
    say = tokenizer("llava").convert_ids_to_tokens
    return {at: say(target) for at, target in enumerate(sample.targets) if target != IGNORE}


TWO_TURNS = (
    says("user", IMAGE, "what colour"),
    says("assistant", "red"),
    says("user", "a", IMAGE, "what shape"),
    says("assistant", "round blue"),
)


def test_two_pictures_and_two_turns_give_these_tokens_and_these_labels() -> None:
    sample = maker().make(example(TWO_TURNS, num_pictures=2))
    asked = ["<user>", "\n", *PICTURE, "what", "colour", "</s>", "\n", "<assistant>", "\n", "red", "</s>", "\n"]
    again = ["<user>", "\n", "a", *PICTURE, "what", "shape", "</s>", "\n", "<assistant>", "\n", "round", "blue"]
    assert words(sample) == asked + again
    first, second = 23, len(asked) + 24
    assert trained(sample) == {first: "red", first + 1: "</s>", second: "round", second + 1: "blue", second + 2: "</s>"}
    assert sample.branch == (0,) * len(sample.tokens)
    assert [grid.tolist() for grid in sample.grids] == [[[row, column] for row in range(4) for column in range(4)]] * 2
    assert [read.tokens for read in sample.processed] == [16, 16]
    assert sample.key == "key"


def test_a_template_without_end_tokens_trains_the_tokenizers_and_never_the_space_behind_an_answer() -> None:
    # As LLaVA 1.5: roles in words, answers closed by a space.
    template = (
        "{% for m in messages %}{{ 'a ' if m['role'] == 'user' else 'b ' }}"
        "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] + ' ' }}{% endif %}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'b' }}{% endif %}"
    )
    sample = maker(template=template).make(example(TWO_TURNS, num_pictures=2))
    assert words(sample) == ["a", *PICTURE, "what", "colour", "b", "red", "a", "a", *PICTURE, "what", "shape", "b", "round", "blue"]
    assert trained(sample) == {19: "red", 20: "</s>", 41: "round", 42: "blue", 43: "</s>"}
    unknown = maker(template=template).make(example((says("user", IMAGE, "what"), says("assistant", "zebra"))))
    assert list(trained(unknown).values()) == ["<unk>", "</s>"]


def test_an_end_token_of_the_templates_own_is_trained_in_place_of_the_tokenizers() -> None:
    sample = maker(template=LINES.replace("</s>", "<end_of_utterance>")).make(example(TWO_TURNS, num_pictures=2))
    assert list(trained(sample).values()) == ["red", "<end_of_utterance>", "round", "blue", "<end_of_utterance>"]


def test_white_space_between_prompt_and_answer_may_differ_and_nothing_else() -> None:
    # As LLaVA-OneVision's own template: a space behind the role, but none in the prompt.
    spaced = LINES.replace("m['role'] + '>' }}{{", "m['role'] + '>' }} {{")
    sample = maker(template=spaced).make(example(TWO_TURNS, num_pictures=2))
    assert list(trained(sample).values()) == ["red", "</s>", "round", "blue", "</s>"]
    other = LINES.replace("add_generation_prompt %}<assistant>", "add_generation_prompt %}<user>")
    with pytest.raises(BadInput, match=r"does not continue its prompt, which ends in .*<user>\\n', with the answer: .*</s>\\n'; check"):
        maker(template=other).make(example(TWO_TURNS, num_pictures=2))
    last = LINES.replace("</s>{{", "{% if not loop.last %}</s>{% endif %}{{")
    with pytest.raises(BadInput, match="check add_generation_prompt"):
        maker(template=last).make(example(TWO_TURNS, num_pictures=2))


@pytest.mark.contract("samples")
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_whole_text_at_once(name: str) -> None:
    """For every family: pictures tokenised as runs, and cut where answers begin, give what the library's Processor gives."""
    made = maker(name=name, template=None)
    config, reader, scribe = made.reader.config, made.reader, made.conversation_tokenizer
    pictures = [picture(seed, size) for seed, size in enumerate(((40, 40), (24, 60)))]
    conversation = (says("user", IMAGE, IMAGE, "what colour"), says("assistant", "red"), says("user", "shape"), says("assistant", "round"))
    processed = reader.read_conversation(pictures)
    text = reader.expand(scribe.tokenizer.apply_chat_template(list(conversation), tokenize=False), processed)
    expected = scribe.tokenizer(text, add_special_tokens=False)["input_ids"]
    sample = made.make(TrainingExample("x", tuple(pictures), (conversation,)))
    assert list(sample.tokens) == expected[:-1]
    assert [target for target in sample.targets if target != IGNORE] == [VOCABULARY[word] for word in ("red", "</s>", "round", "</s>")]
    assert all(target in (IGNORE, following) for target, following in zip(sample.targets, expected[1:], strict=True))
    assert sample.tokens.count(image_token_id(config)) == sum(len(grid) for grid in sample.grids) == sum(read.tokens for read in processed)


def test_a_token_that_every_text_begins_with_is_put_before_the_conversation() -> None:
    from tokenizers.processors import TemplateProcessing

    made = maker()
    plain = made.make(example(TWO_TURNS[:2]))
    begins = tokenizer("llava")
    begins._tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", VOCABULARY["<bos>"])])
    sample = SampleMaker(begins, made.reader, 500, LINES).make(example(TWO_TURNS[:2]))
    assert sample.tokens == (VOCABULARY["<bos>"], *plain.tokens)
    assert sample.targets == (IGNORE, *plain.targets)
    written = SampleMaker(begins, made.reader, 500, "<bos>" + LINES).make(example(TWO_TURNS[:2]))
    assert written.tokens == sample.tokens


@pytest.mark.parametrize(("glue", "answer"), [("a", "re red"), ("x", "red")])
def test_a_tokenizer_that_joins_prompt_and_answer_is_refused(glue: str, answer: str) -> None:
    # The prompt ends in a word that the answer goes on ("a" becomes "are"); "x" is unknown, and so is what it is joined to.
    prompt = f"<assistant>{{{{ '\\n' }}}}{glue}"
    joined = (
        "{% for m in messages %}{% for part in m['content'] %}{% if part['type'] == 'image' %}<image>{% else %}"
        f"{{% if m['role'] == 'assistant' %}}{prompt}{{% endif %}}{{{{ part['text'] }}}}{{% endif %}}{{% endfor %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{prompt}{{% endif %}}"
    )
    with pytest.raises(BadInput, match="no beginning of the tokens of the whole conversation"):
        maker(template=joined).make(example((says("user", IMAGE, "what"), says("assistant", answer))))


SHAPE = (says("user", IMAGE, "what shape"), says("assistant", "round"))
COLOUR = (says("user", IMAGE, "what colour"), says("assistant", "blue red"))


def test_several_conversations_share_the_pictures_and_branch_behind_them() -> None:
    both, alone = maker().make(example(SHAPE, COLOUR)), [maker().make(example(one)) for one in (SHAPE, COLOUR)]
    trunk = ["<user>", "\n", *PICTURE]
    branches = [
        ["what", "shape", "</s>", "\n", "<assistant>", "\n", "round"],
        ["what", "colour", "</s>", "\n", "<assistant>", "\n", "blue", "red"],
    ]
    assert words(both) == trunk + branches[0] + branches[1]
    assert both.branch == (0,) * 18 + (1,) * 7 + (2,) * 8
    assert both.targets == alone[0].targets + alone[1].targets[18:]
    assert len(both.processed) == len(both.grids) == 1


def test_conversations_without_pictures_share_nothing() -> None:
    sample = maker().make(example((says("user", "a"), says("assistant", "b")), (says("user", "c"), says("assistant", "d")), num_pictures=0))
    assert set(sample.branch) == {1, 2}
    assert list(trained(sample).values()) == ["b", "</s>", "d", "</s>"]


MALFORMED = {
    "no conversation": ((), 1),
    "and the example has 2": ((SHAPE,), 2),
    "places 0 pictures, and the example has 1": (((says("user", "a"), says("assistant", "b")),), 1),
    "does not begin with a question and end with": ((SHAPE[:1],), 1),
    "an answer is empty": (((says("user", IMAGE), says("assistant", " ")),), 1),
    "or holds a picture": (((says("user", "a"), says("assistant", IMAGE, "b")),), 1),
    "a text holds '<image>'": (((says("user", IMAGE, "a <image>"), says("assistant", "b")),), 1),
    "differ before the end of the last picture": ((SHAPE, (says("user", "a", IMAGE), says("assistant", "b"))), 1),
}


@pytest.mark.parametrize("problem", MALFORMED)
def test_what_cannot_be_trained_on_is_left_out_with_the_reason(problem: str) -> None:
    conversations, num_pictures = MALFORMED[problem]
    with pytest.raises(Unfit, match=f"malformed: .*{problem}"):
        maker().make(example(*conversations, num_pictures=num_pictures))


def test_a_text_that_holds_an_image_token_is_malformed_where_the_marker_is_another_sign() -> None:
    conversation = (says("user", IMAGE, "a <image_soft_token> b"), says("assistant", "red"))
    with pytest.raises(Unfit, match="malformed: a text holds an image token of its own"):
        maker(name="gemma3", template=None).make(example(conversation))
    clean = (says("user", IMAGE, "a b"), says("assistant", "red"))
    with pytest.raises(Unfit, match="malformed: its conversations differ"):
        maker(name="gemma3", template=None).make(example(clean, conversation))


def test_what_a_template_refuses_is_malformed_and_what_it_forgets_is_bad_input() -> None:
    refusing = "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}" + LINES
    with pytest.raises(Unfit, match=r"malformed: the chat template refuses the conversation \(one turn only\)"):
        maker(template=refusing).make(example(TWO_TURNS, num_pictures=2))
    with pytest.raises(BadInput, match="leaves pictures out; it must write '<image>'"):
        maker(template=LINES.replace("<image>", "")).make(example(SHAPE))
    with pytest.raises(BadInput, match="take the template of a vision-language model"):
        maker(template="{% for m in messages %}{{ m['content'] }}{% endfor %}").make(example(SHAPE))
    silent = tokenizer("llava")
    silent.chat_template = None
    with pytest.raises(BadInput, match="give chat_template"):
        ConversationTokenizer(silent, maker().conversation_tokenizer.image_token_id)


def test_an_answer_at_the_pictures_end_trains_one_conversation_and_refuses_several() -> None:
    part = "{{ '<image>' if part['type'] == 'image' else part['text'] }}"
    bare = f"{{% for m in messages %}}{{% for part in m['content'] %}}{part}{{% endfor %}}{{% endfor %}}"
    red, blue = ((says("user", IMAGE), says("assistant", word)) for word in ("red", "blue"))
    assert trained(maker(template=bare).make(example(red))) == {15: "red", 16: "</s>"}
    with pytest.raises(Unfit, match="follows the last picture at once"):
        maker(template=bare).make(example(red, blue))


def test_truncation_cuts_text_behind_the_last_picture_and_never_a_picture() -> None:
    whole = maker().make(example(TWO_TURNS, num_pictures=2))
    end = 27 + 3 + 16  # the second picture's end
    for length in range(1, len(whole.tokens) + 1):
        made = maker(max_length=length)
        if length < end:
            with pytest.raises(Unfit, match=f"too long: 54 tokens where {length} are allowed, and its pictures end at token {end}"):
                made.make(example(TWO_TURNS, num_pictures=2))
        elif length >= 52:
            cut = made.make(example(TWO_TURNS, num_pictures=2))
            assert (cut.tokens, cut.targets, cut.branch) == (whole.tokens[:length], whole.targets[:length], whole.branch[:length])
            assert len(cut.grids) == len(cut.processed) == 2
        else:  # only the first answer is left, and it stands before the picture; what is behind it teaches nothing
            with pytest.raises(Unfit, match="too long"):
                made.make(example(TWO_TURNS, num_pictures=2))


def test_a_cut_that_leaves_no_answer_drops_the_sample_and_refusing_is_bad_input() -> None:
    with pytest.raises(Unfit, match="too long: 25 tokens where 20 are allowed, and no answer begins before"):
        maker(max_length=20).make(example(SHAPE))
    with pytest.raises(BadInput, match=r"example key has 25 tokens where 20 are allowed.*raise max_length"):
        maker(max_length=20, too_long="refuse").make(example(SHAPE))
    last_branch_lost = maker(max_length=26).make(example(SHAPE, COLOUR))
    assert last_branch_lost.tokens == maker().make(example(SHAPE)).tokens
    with pytest.raises(BadInput, match="max_length is 0"):
        maker(max_length=0)


def damaged(form: str) -> bytes:
    written = BytesIO()
    picture(0, (64, 64)).save(written, form)
    whole = written.getvalue()
    return whole[: len(whole) // 2] if form != "GIF" else b"GIF89a" + whole[20:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


PACKED = zlib.compress(bytes(range(200)) * 65)
# Each makes Pillow raise something else: OSError and its kin, and what is named.
DAMAGED: dict[str, Any] = {
    "half a PNG": damaged("PNG"),
    "half a JPEG": damaged("JPEG"),
    "a GIF without its head": damaged("GIF"),
    "nothing": b"",
    "a web page": b"<html>",
    "no file": Path("/nowhere/x.png"),
    "a folder": Path("/"),
    "SyntaxError": b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", PACKED[:50])
    + chunk(b"\0\1\2\3", PACKED[50:]),
    "ValueError": b"P6\n8 8\n99999999\n",
    "NotImplementedError": b"DDS " + struct.pack("<IIII", 124, 0, 8, 8) + bytes(108),
}


@pytest.mark.parametrize("source", DAMAGED.values(), ids=DAMAGED)
def test_pictures_that_cannot_be_read_are_unfit_with_what_pillow_said(source: Any) -> None:
    with pytest.raises(Unfit, match=r"^unreadable: (/|a picture \()"):
        open_picture(source)


def test_a_picture_of_too_many_pixels_is_unfit_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    written = BytesIO()
    picture(0, (64, 64)).save(written, "PNG")
    for limit in (3000, 1000):  # where Pillow warns, and where it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(Unfit, match=r"unreadable: a picture .DecompressionBomb"):
                open_picture(written.getvalue())


def test_pictures_come_in_rgb_and_the_right_way_up(tmp_path: Path) -> None:
    wide = picture(0, (4, 8))
    exif = Image.Exif()
    exif[274] = 6
    wide.save(tmp_path / "turned.png", exif=exif)
    turned = open_picture(tmp_path / "turned.png").image
    assert np.array_equal(np.asarray(turned), np.rot90(np.asarray(wide), -1))
    assert open_picture(wide.convert("L")).image.mode == "RGB"
    assert np.array_equal(np.asarray(open_picture(wide).image), np.asarray(wide))


def test_a_picture_that_the_image_processor_refuses_is_unfit() -> None:
    thin = TrainingExample("x", (picture(0, (300, 1)),), ((says("user", IMAGE, "a"), says("assistant", "b")),))
    with pytest.raises(Unfit, match=r"unreadable: the image processor refuses pictures of 1 x 300 .*aspect ratio"):
        maker(name="qwen2_vl", template=None).make(thin)


def pairs(*reasons: str) -> Sequence[tuple[str, str]]:
    return [(f"k{number}", reason) for number, reason in enumerate(reasons)]


def test_the_tally_counts_by_kind_and_stops_where_the_share_is_clearly_too_large() -> None:
    tally = Dropped(max_damaged_frac=0.1, min_seen=20)
    tally.add(pairs("unreadable: gone", "malformed: odd", "too long: very"), 10)
    assert tally.counts == {"unreadable": 1, "malformed": 1, "too long": 1}
    assert tally.lines() == [f"1 of 10 examples left out: {kind}" for kind in ("malformed", "too long", "unreadable")]
    assert tally.listed == {"k0": "unreadable: gone", "k1": "malformed: odd", "k2": "too long: very"}
    tally.add(pairs(*["unreadable: cut"] * 7), 10)  # 9 of 20 where 2 are allowed: by chance 6 times in 100,000
    with pytest.raises(
        BadInput, match=r"11 of the first 22 examples cannot be used, more than the 10\.0% allowed: k0 \(unreadable: gone\); k1 \(.*frac"
    ):
        tally.add(pairs("unreadable: cut", "malformed: odd"), 2)
    with pytest.raises(BadInput, match="give a fraction from 0 to 1"):
        Dropped(max_damaged_frac=5.0)
    with pytest.raises(BadInput, match="1 of the first 100 examples cannot be used, more than the 0"):
        Dropped(max_damaged_frac=0.0).add(pairs("malformed: odd"), 100)


def test_the_tally_lists_each_example_once_and_no_more_than_asked() -> None:
    tally = Dropped(max_damaged_frac=1.0, num_listed=3)
    for _ in range(3):
        tally.add(pairs(*["unreadable: x"] * 5), 10)
    assert tally.counts["unreadable"] == 15
    assert list(tally.listed) == ["k0", "k1", "k2"]
    assert Dropped().lines() == []
