"""Contact sheets: pairs of pictures side by side, each with a caption, for inspection by eye."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont, ImageOps

SIDE = 200  # of a picture, in pixels
GAP, LINE = 10, 22
COLUMNS = 2  # pairs in a row
PAPER, INK, FRAME = "#ffffff", "#20201e", "#c8c8c4"

Entry = tuple[Image.Image, Image.Image, str]


def contact_sheet(entries: Sequence[Entry]) -> Image.Image:
    """Pairs in reading order, two per row, uncropped, each with its caption above."""
    columns = min(COLUMNS, len(entries))
    rows = -(-len(entries) // columns)
    wide, tall = 2 * SIDE + 3 * GAP, SIDE + LINE + 2 * GAP
    sheet = Image.new("RGB", (columns * wide + GAP, rows * tall + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index, (one, two, text) in enumerate(entries):
        left, top = GAP + index % columns * wide, GAP + index // columns * tall
        draw.text((left, top), _fit(text, font), INK, font)
        for column, picture in enumerate((one, two)):
            corner = (left + column * (SIDE + GAP), top + LINE)
            sheet.paste(ImageOps.pad(picture.convert("RGB"), (SIDE, SIDE), color=PAPER), corner)
            draw.rectangle((*corner, corner[0] + SIDE - 1, corner[1] + SIDE - 1), outline=FRAME)
    return sheet


def _fit(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, shortened with an ellipsis to the width of a pair."""
    num_chars = len(text)
    while num_chars and font.getlength(text[:num_chars]) > 2 * SIDE + GAP:
        num_chars -= 1
    return text if num_chars == len(text) else f"{text[: num_chars - 1]}…"
