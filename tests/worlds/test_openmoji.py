"""OpenMoji: drawings to pixels, counterfactual pairs and their questions, on a small package written here and on the real one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from helpers import REPOSITORY
from helpers.openmoji_package import write_package
from helpers.requirements import require, require_openmoji
from theodolite.records.errors import BadInput, UnknownName
from theodolite.worlds.gallery import TABLE, Gallery
from theodolite.worlds.openmoji.bases import FACTORS, MAX_CHANGED_FRAC, changed_frac, skin_tone_alone_bases, skin_tone_bases
from theodolite.worlds.openmoji.data import (
    alpha_of,
    by_hexcode,
    captioned_emoji,
    draw_emoji,
    entries,
    openmoji_folder,
    openmoji_home,
    plain_name,
)
from theodolite.worlds.openmoji.gallery import openmoji_gallery, picture_name, render_openmoji
from theodolite.worlds.openmoji.names import TONES, excludes, topic_of
from theodolite.worlds.registry import gallery_named, is_gallery, world_named

require("resvg_py")
WHITE = (255, 255, 255)


def _real_home() -> Path | None:
    home = openmoji_folder()
    return home if (home / "data" / "openmoji.json").is_file() else None


REAL = _real_home()


@pytest.fixture(scope="session")
def small_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_package(tmp_path_factory.mktemp("npm") / "openmoji")


@pytest.fixture
def small(small_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small package is the installed one."""
    monkeypatch.setenv("THEODOLITE_OPENMOJI", str(small_home))
    return small_home


@pytest.fixture(params=["small", "real"])
def package(request: pytest.FixtureRequest, small_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Either package, as the installed one."""
    if request.param == "real":
        require_openmoji()
    home = small_home if request.param == "small" or REAL is None else REAL
    monkeypatch.setenv("THEODOLITE_OPENMOJI", str(home))
    yield home


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Path:
    require_openmoji()
    monkeypatch.setenv("THEODOLITE_OPENMOJI", str(REAL))
    return REAL


def _interventions(gallery: Gallery) -> pl.DataFrame:
    return gallery.table.filter(pl.col("factor") != "")


# --- the package and its pixels -----------------------------------------------------------------------------------------------------


def test_a_drawing_is_laid_on_its_ground_by_its_opacity(small: Path) -> None:
    (picture,) = draw_emoji(["1F44B"], 72, [(10, 20, 30)])
    alpha = alpha_of("1F44B", 72)
    assert (picture[alpha == 0] == (10, 20, 30)).all()
    assert tuple(picture[36, 30]) == (0xFC, 0xEA, 0x2B) and alpha[36, 30] == 255
    half = np.argwhere((alpha > 100) & (alpha < 150))
    row, column = half[0]
    # The fringe of the black outline: nothing but the ground, as far as it shows through.
    expected = np.array([10, 20, 30]) * (255 - int(alpha[row, column])) / 255
    assert np.abs(picture[row, column] - expected).max() <= 0.5


def test_a_shift_moves_every_pixel_and_fills_with_ground(small: Path) -> None:
    still, moved = draw_emoji(["1F44B", "1F44B"], 72, [(9, 8, 7)] * 2, [(0, 0), (3, -2)])
    assert (moved[:-2, 3:] == still[2:, :-3]).all() and (moved[-2:] == (9, 8, 7)).all() and (moved[:, :3] == (9, 8, 7)).all()
    back = draw_emoji(["1F44B"], 72, [(9, 8, 7)], [(-3, 2)])[0]
    assert (back[2:, :-3] == still[:-2, 3:]).all()


def test_a_drawing_that_is_not_there_is_named(small: Path) -> None:
    with pytest.raises(BadInput, match="no drawing 'BEEF'"):
        draw_emoji(["BEEF"], 32, [WHITE])
    with pytest.raises(BadInput, match="one of each per picture"):
        draw_emoji(["1F44B"], 32, [])


def test_a_missing_package_names_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("THEODOLITE_OPENMOJI", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert openmoji_folder() == tmp_path / "theodolite" / "openmoji" / "node_modules" / "openmoji"
    with pytest.raises(BadInput, match="theodolite fetch openmoji"):
        openmoji_home()


def test_a_missing_renderer_names_the_command_that_installs_it(small: Path) -> None:
    code = (
        "import sys; sys.modules['resvg_py'] = None\n"
        "from theodolite.records.errors import BadInput\n"
        "from theodolite.worlds.openmoji.data import draw_emoji\n"
        "try: draw_emoji(['1F44B'], 32, [(0, 0, 0)])\n"
        "except BadInput as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert 'pip install "theodolite[openmoji]"' in done.stdout, done.stderr


def test_captions_leave_out_skin_tones_flags_and_keycaps(package: Path) -> None:
    known = by_hexcode()
    found = dict(captioned_emoji())
    assert not [code for code in found if known[code].skintone or known[code].group == "flags" or known[code].subgroup == "keycap"]
    assert not [text for text in found.values() if "skin tone" in text or ":" in text or not text.strip()]
    assert found["1F44B"] == "waving hand"


def test_plain_names_put_details_into_words(package: Path) -> None:
    names = {emoji.annotation: plain_name(emoji) for emoji in entries()}
    assert names["man: dark skin tone, red hair"] == "man with red hair"
    assert names["man: bald"] == "bald man"
    assert names["woman running: light skin tone, facing right"] == "woman running facing right"


# --- pairs --------------------------------------------------------------------------------------------------------------------------


def test_the_five_tones_of_a_base_are_opaque_in_the_same_pixels(package: Path) -> None:
    bases = skin_tone_bases().bases
    assert bases
    for index in np.random.default_rng(0).permutation(len(bases))[:60]:
        first, *others = (alpha_of(member.emoji.hexcode, 72) for member in bases[index].variants[0])
        assert all((first == other).all() for other in others), bases[index].variants[0][0].emoji.annotation


def test_every_pair_of_tones_of_a_scene_is_asked_and_shares_place_question_and_choices(package: Path) -> None:
    rows = _interventions(openmoji_gallery("skin_tone", 12, 3)).filter(pl.col("query") == "skin_tone")
    for (scene,), group in rows.group_by("scene"):
        values = {frozenset(pair) for pair in group.select("value_before", "value_after").iter_rows()}
        assert values == {frozenset(pair) for pair in combinations(TONES.values(), 2)} and group.height == 10, scene
        assert group["question_before"].n_unique() == group["choices"].n_unique() == 1
        places = {name.partition("_")[2] for side in ("picture_before", "picture_after") for name in group[side]}
        assert len(places) == 1


@pytest.mark.parametrize("factor", FACTORS)
def test_truth_moves_where_the_factor_is_asked_and_nowhere_else(package: Path, factor: str) -> None:
    gallery = openmoji_gallery(factor, None if factor != "skin_tone" else 40, 0)
    (changed,) = gallery.factors
    rows = _interventions(gallery)
    assert rows.height and set(rows["factor"]) == {changed.name}
    moves = rows.filter(pl.col("query") == changed.name)
    assert (moves["truth_before"] != moves["truth_after"]).all()
    assert (moves["truth_before"] == moves["value_before"]).all() and (moves["truth_after"] == moves["value_after"]).all()
    stays = rows.filter(pl.col("query") != changed.name)
    assert stays.height and (stays["truth_before"] == stays["truth_after"]).all()
    pairs = rows.select("picture_before", "picture_after").unique()
    assert pairs.height == moves.height, "every pair is asked what its factor must change, once"
    assert stays.select("picture_before", "picture_after").unique().height == pairs.height, "and what it must not"


@pytest.mark.parametrize("factor", FACTORS)
def test_a_table_is_a_gallery_table_whose_truths_are_among_different_choices(package: Path, factor: str) -> None:
    table = openmoji_gallery(factor, 20, 1).table
    assert dict(table.schema) == {name: pl.Series([], dtype=dtype).dtype for name, dtype in TABLE.items()}
    assert table["choices"].list.len().min() >= 2
    assert (table["choices"].list.n_unique() == table["choices"].list.len()).all()
    for side in ("truth_before", "truth_after"):
        assert table.select(pl.col("choices").list.contains(pl.col(side)).all()).item()
    assert (table["form"] == "open").all() and (table["value_before"].is_null() == (table["factor"] == "")).all()


@pytest.mark.parametrize("factor", FACTORS)
def test_every_query_of_every_scene_has_a_noise_floor(package: Path, factor: str) -> None:
    table = openmoji_gallery(factor, 20, 1).table
    noise = table.filter(pl.col("factor") == "")
    same = pl.col("picture_before") == pl.col("picture_after")
    asked = set(table.select("scene", "query").iter_rows())
    nuisance, paraphrase = noise.filter(~same), noise.filter(same)
    assert set(nuisance.select("scene", "query").iter_rows()) == set(paraphrase.select("scene", "query").iter_rows()) == asked
    assert (nuisance["question_before"] == nuisance["question_after"]).all()
    assert (paraphrase["question_before"] != paraphrase["question_after"]).all()
    # The same drawing on another ground.
    for before, after in nuisance.select("picture_before", "picture_after").iter_rows():
        assert before.split("_")[0] == after.split("_")[0] and before.split("_")[1] != after.split("_")[1]


def test_a_gallery_is_the_same_for_the_same_seed_and_scenes_do_not_depend_on_their_number(small: Path) -> None:
    first, again, other = (openmoji_gallery("skin_tone", 5, seed).table for seed in (4, 4, 5))
    assert first.equals(again) and not first.equals(other)
    every = openmoji_gallery("skin_tone", None, 4).table
    assert every.filter(pl.col("scene").is_in(first["scene"].unique().to_list())).equals(first)
    assert first["scene"].n_unique() == 5


def test_pictures_are_what_their_names_say_at_any_size(small: Path) -> None:
    gallery = openmoji_gallery("skin_tone", 3, 0)
    names = sorted({*gallery.table["picture_before"]})
    assert (gallery.render(names, 48) == gallery.render(names, 48)).all()
    name = picture_name("1F44B", (214, 232, 247), 2, -1)
    assert (render_openmoji([name], 144)[0] == draw_emoji(["1F44B"], 144, [(214, 232, 247)], [(4, -2)])[0]).all()
    for wrong in ("1F44B", "1F44B_d6e8f7_2", "../x_d6e8f7_0_0"):
        with pytest.raises(BadInput, match="is not a picture name of OpenMoji"):
            render_openmoji([wrong], 32)


def test_no_drawing_leaves_its_picture(package: Path) -> None:
    table = openmoji_gallery("skin_tone", 30, 2).table
    for name in sorted({*table["picture_before"], *table["picture_after"]})[::7]:
        (picture,) = render_openmoji([name], 72)
        ground = np.array(list(bytes.fromhex(name.split("_")[1])))
        shown = (picture != ground).any(axis=-1).sum()
        (still,) = draw_emoji([name.split("_")[0]], 72, [tuple(int(part) for part in ground)])
        assert shown == (still != ground).any(axis=-1).sum(), name


def test_a_pair_of_skin_tones_differs_inside_its_outline_only(package: Path) -> None:
    rows = _interventions(openmoji_gallery("skin_tone", 10, 0)).filter(pl.col("query") == "skin_tone")
    for before, after in rows.select("picture_before", "picture_after").iter_rows():
        first, second = render_openmoji([before, after], 72)
        ground = np.array(list(bytes.fromhex(before.split("_")[1])))
        changed = (first != second).any(axis=-1)
        assert changed.any() and (first[changed] != ground).any(axis=-1).all()


def test_skin_tone_alone_keeps_bases_whose_hair_stays(small: Path) -> None:
    names = {base.variants[0][0].emoji.annotation.split(":")[0] for base in skin_tone_alone_bases().bases}
    # The small package's curly head has the hair colour of its tone; its other heads, and all hands, do not.
    heads = [member.emoji.annotation for base in skin_tone_alone_bases().bases for member in base.variants[0]]
    assert {"waving hand", "man", "man running"} <= names and not [name for name in heads if "curly" in name]
    assert skin_tone_alone_bases().left_out["pairs whose hair changes colour with the skin"] == 10


def test_man_and_woman_are_kept_where_few_pixels_change(package: Path) -> None:
    gallery = openmoji_gallery("gender", None, 0)
    pairs = _interventions(gallery).select("picture_before", "picture_after").unique()
    fracs = [changed_frac(before.split("_")[0], after.split("_")[0]) for before, after in pairs.iter_rows()]
    assert min(fracs) > 0 and max(fracs) <= MAX_CHANGED_FRAC
    assert gallery.left_out["pairs that differ in more than 5% of the pixels"] >= 6


def test_colours_are_compared_within_one_outline(small: Path) -> None:
    gallery = openmoji_gallery("colour", None, 0)
    hearts = _interventions(gallery).filter(pl.col("truth_before") != "circle").filter(pl.col("question_before").str.contains("heart"))
    assert {*hearts["value_before"], *hearts["value_after"]} == {"red", "green", "blue"}
    assert gallery.left_out == {"pairs with different outlines": 3}


def test_no_choice_may_be_true_beside_the_true_one(package: Path) -> None:
    table = openmoji_gallery("skin_tone", 60, 0).table.filter(pl.col("query").is_in(["doing", "role", "gesture", "shown"]))
    for truth, choices in table.select("truth_before", "choices").unique().iter_rows():
        assert len(choices) == 4
        assert all(excludes(truth, choice) for choice in choices if choice != truth)
    assert not excludes("biking", "mountain biking") and not excludes("pinched fingers", "pinching hand")
    assert excludes("running", "surfing")


def test_names_are_the_same_for_both_sexes_and_all_tones(package: Path) -> None:
    topics: dict[str, set[tuple[str, str] | None]] = {}
    for emoji in entries():
        if emoji.subgroup == "person-sport" and " running" in emoji.annotation:
            topics.setdefault("running", set()).add(topic_of(emoji))
    assert topics.get("running", {("doing", "running")}) == {("doing", "running")}


# --- the whole package --------------------------------------------------------------------------------------------------------------


def test_the_real_package_holds_the_pairs_that_the_docs_count(real: Path) -> None:
    counted = {"skin_tone": (330, 3300), "skin_tone_alone": (178, 1780), "colour": (21, 205), "direction": (15, 90), "hair": (18, 156)}
    for factor, (scenes, pairs) in counted.items():
        bases = FACTORS[factor]().bases
        assert (len(bases), sum(base.num_pairs for base in bases)) == (scenes, pairs), factor
    text = (REPOSITORY / "docs" / "reference" / "openmoji.md").read_text()
    for factor, (scenes, pairs) in counted.items():
        assert f"| `{factor}` | {scenes} | {pairs} |" in text


def test_the_audit_has_its_pairs_and_says_whose_pictures_they_are(real: Path) -> None:
    gallery = gallery_named("openmoji:skin_tone", None, 0)
    assert _interventions(gallery).select("picture_before", "picture_after").unique().height == 3300
    assert gallery.attribution is not None and "CC BY-SA 4.0" in gallery.attribution and "https://openmoji.org" in gallery.attribution
    trained = {code for code, _ in captioned_emoji()}
    assert not trained & {name.split("_")[0] for name in gallery.table["picture_before"]}


# --- names --------------------------------------------------------------------------------------------------------------------------


def test_galleries_are_found_by_name(small: Path) -> None:
    assert gallery_named("openmoji:hair", 2, 0).name == "openmoji:hair"
    assert is_gallery("openmoji:hair") and is_gallery("openmoji") and not is_gallery("shapes")
    with pytest.raises(BadInput, match="openmoji:skin_tone, "):
        gallery_named("openmoji", None, 0)
    with pytest.raises(UnknownName, match="factor of openmoji is called 'mood'; there is skin_tone"):
        gallery_named("openmoji:mood", None, 0)
    with pytest.raises(UnknownName, match="openmoji:hair"):
        gallery_named("shapes", None, 0)
    with pytest.raises(BadInput, match="galleries openmoji:skin_tone"):
        world_named("openmoji:hair")
    with pytest.raises(UnknownName, match="shapes, easy_vqa, openmoji:skin_tone"):
        world_named("shape")
    with pytest.raises(BadInput, match="0 scenes"):
        gallery_named("openmoji:hair", 0, 0)
