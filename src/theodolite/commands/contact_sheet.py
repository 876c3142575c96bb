"""Contact sheets: pairs of pictures side by side, each with a line of text, for people to look through."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE = 200  # of a picture, in pixels
GAP, LINE = 10, 22
COLUMNS = 2  # pairs in a row
PAPER, INK, FRAME = "#ffffff", "#20201e", "#c8c8c4"

Entry = tuple[Image.Image, Image.Image, str]


def contact_sheet(entries: Sequence[Entry]) -> Image.Image:
    """Pairs in reading order, whole and upright, two a row; each with its text above it."""
    columns = min(COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    wide, tall = 2 * SIDE + 3 * GAP, SIDE + LINE + 2 * GAP
    sheet = Image.new("RGB", (columns * wide + GAP, rows * tall + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for at, (one, two, text) in enumerate(entries):
        left, top = GAP + at % columns * wide, GAP + at // columns * tall
        draw.text((left, top), _cut(text, font), INK, font)
        for place, picture in enumerate((one, two)):
            corner = (left + place * (SIDE + GAP), top + LINE)
            sheet.paste(ImageOps.pad(picture.convert("RGB"), (SIDE, SIDE), color=PAPER), corner)
            draw.rectangle((*corner, corner[0] + SIDE - 1, corner[1] + SIDE - 1), outline=FRAME)
    return sheet


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a text as fits above a pair."""
    fitting = len(text)
    while fitting and font.getlength(text[:fitting]) > 2 * SIDE + GAP:
        fitting -= 1
    return text if fitting == len(text) else f"{text[: fitting - 1]}…"
