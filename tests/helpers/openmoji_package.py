"""A small package with the layout of openmoji, drawn by the tests: a few hands, people, heads and hearts."""

from __future__ import annotations

import json
from pathlib import Path

FITZPATRICK = {"": "#fcea2b", "1": "#fadcbc", "2": "#debb90", "3": "#c19a65", "4": "#a57939", "5": "#6a462f"}
HAIR = {"": "#f1b31c", "1": "#a57939", "2": "#fcea2b", "3": "#6a462f", "4": "#000000", "5": "#000000"}
TONE_NAMES = {"1": "light", "2": "medium-light", "3": "medium", "4": "medium-dark", "5": "dark"}
TONE_CODES = {"1": "1F3FB", "2": "1F3FC", "3": "1F3FD", "4": "1F3FE", "5": "1F3FF"}
RIGHT = "200D-27A1-FE0F"
HANDS = ("1F44B waving hand", "1F44D thumbs up", "270A raised fist", "1F44C OK hand", "1F91E crossed fingers", "1F91F love-you gesture")
SPORTS = ("3C3 running", "3C4 surfing", "3CC golfing", "6B4 biking", "3CA swimming")
HEARTS = {"red": "#d22f27", "green": "#5c9e31", "blue": "#1e50a0", "pink": "#ffa7c0"}
HEAD_HAIR = {"red hair": "#e27022", "white hair": "#d0cfce", "curly hair": None, "bald": None}


def write_package(home: Path, version: str = "17.0.0") -> Path:
    """Writes the package to a folder: package.json, data/openmoji.json, color/svg/*.svg."""
    rows: list[dict[str, object]] = []
    drawings: dict[str, str] = {}

    def add(hexcode: str, drawing: str, annotation: str, group: str, subgroup: str, tone: str = "", base: str = "") -> None:
        drawings[hexcode] = f'<svg viewBox="0 0 72 72" xmlns="http://www.w3.org/2000/svg">{drawing}</svg>'
        rows.append(
            {
                "emoji": "",
                "hexcode": hexcode,
                "group": group,
                "subgroups": subgroup,
                "annotation": annotation,
                "tags": "one, two",
                "openmoji_tags": "",
                "skintone": int(tone) if tone else "",
                "skintone_combination": "single" if base else "",
                "skintone_base_emoji": "",
                "skintone_base_hexcode": base,
                "order": len(rows) + 1,
            }
        )

    for tone, skin in FITZPATRICK.items():
        for number, hand in enumerate(HANDS):
            code, name = hand.split(" ", 1)
            add(_code(code, tone), _disc(30 + number, skin), _name(name, tone), "people-body", "hand-fingers-open", tone, code)
        for sport in SPORTS:
            _add_sport(add, sport, tone, skin)
        for number, (hair, colour) in enumerate(HEAD_HAIR.items()):
            code = f"1F468-200D-1F9B{number}"
            drawing = _disc(36, skin) + (
                f'<rect x="20" y="14" width="32" height="8" fill="{colour or HAIR[tone]}"/>' if hair != "bald" else ""
            )
            add(_code(code, tone), drawing, _name("man", tone, hair), "people-body", "person", tone, code)
    for number, (colour, fill) in enumerate(HEARTS.items()):
        # The pink one has another outline.
        drawing = f'<rect x="20" y="20" width="{30 if colour == "pink" else 32}" height="30" fill="{fill}"/>'
        add(f"1F49{number}", drawing, f"{colour} heart", "smileys-emotion", "heart")
    for colour in ("red", "green"):
        code = "1F534" if colour == "red" else "1F7E2"
        add(code, _disc(36, HEARTS[colour]), f"{colour} circle", "symbols", "geometric")
    add("1F34E", _disc(40, "#d22f27"), "red apple", "food-drink", "food-fruit")
    add("1F1E6", _disc(40, "#d22f27"), "flag: Andorra", "flags", "country-flag")
    add("0031", _disc(40, "#d22f27"), "keycap: 1", "symbols", "keycap")
    for part in ("data", "color/svg"):
        (home / part).mkdir(parents=True)
    (home / "package.json").write_text(json.dumps({"name": "openmoji", "version": version}))
    (home / "data" / "openmoji.json").write_text(json.dumps(rows), encoding="utf-8")
    for hexcode, drawing in drawings.items():
        (home / "color" / "svg" / f"{hexcode}.svg").write_text(drawing, encoding="utf-8")
    return home


def _add_sport(add, sport: str, tone: str, skin: str) -> None:  # type: ignore[no-untyped-def]
    """A man and a woman at it; she has a tail of hair (golf: and a large skirt), and whoever runs also does so to the right."""
    code, name = sport.split(" ", 1)
    for sex, sign in (("man", "2642"), ("woman", "2640")):
        stem = f"1F{code}-200D-{sign}-FE0F"
        extra = '<rect x="40" y="10" width="6" height="4" fill="#000000"/>' if sex == "woman" else ""
        if sex == "woman" and name == "golfing":
            extra += '<rect x="10" y="40" width="52" height="24" fill="#1e50a0"/>'
        left = _disc(34, skin) + extra
        add(_code(stem, tone), left, _name(f"{sex} {name}", tone), "people-body", "person-sport", tone, stem)
        if name == "running":
            mirrored = f'<g transform="translate(72 0) scale(-1 1)">{left}</g>'
            base = f"{stem}-{RIGHT}"
            annotation = _name(f"{sex} {name}", tone, "facing right")
            add(f"{_code(stem, tone)}-{RIGHT}", mirrored, annotation, "people-body", "person-sport", tone, base)


def _code(stem: str, tone: str) -> str:
    """The hexcode of a toned drawing: the tone comes second."""
    first, dash, rest = stem.partition("-")
    return f"{first}-{TONE_CODES[tone]}{dash}{rest}" if tone else stem


def _name(name: str, tone: str, detail: str = "") -> str:
    details = ", ".join(part for part in (f"{TONE_NAMES[tone]} skin tone" if tone else "", detail) if part)
    return f"{name}: {details}" if details else name


def _disc(middle: int, fill: str) -> str:
    return f'<circle cx="{middle}" cy="36" r="14.3" fill="{fill}" stroke="#000000" stroke-width="2"/>'
