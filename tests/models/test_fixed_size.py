"""Pixels of a fixed size: those of the library's image processor to the bit, and no shortcut for any other processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessorPil, SiglipImageProcessorPil, ViTImageProcessorPil

from helpers import tiny_families
from theodolite.models.fixed_size import FixedSizePixels

SIDES = {"height": 30, "width": 42}


def picture(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(640, 427), (20, 90), (42, 30), (1, 1)])
@pytest.mark.parametrize(
    "image_processor",
    [
        SiglipImageProcessorPil(size=SIDES, image_mean=[0.5] * 3, image_std=[0.5] * 3),
        SiglipImageProcessorPil(size=SIDES, image_mean=[0.48, 0.45, 0.4], image_std=[0.26, 0.26, 0.27], resample=Image.Resampling.LANCZOS),
        ViTImageProcessorPil(size=SIDES, do_normalize=False),
        ViTImageProcessorPil(size=SIDES, rescale_factor=1 / 127.5),
    ],
)
def test_the_same_bits_as_the_image_processor(image_processor: Any, size: tuple[int, int]) -> None:
    pixels = FixedSizePixels.of(image_processor)
    assert pixels is not None
    expected = image_processor([picture(*size)], return_tensors="pt")["pixel_values"]
    assert pixels(picture(*size)).dtype == expected.dtype and torch.equal(pixels(picture(*size)), expected)


@pytest.mark.parametrize(
    "image_processor",
    [
        CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size=SIDES),
        SiglipImageProcessorPil(size=SIDES, do_resize=False),
        *(tiny_families.parts(name)[0] for name in ("qwen2_vl", "llava_onevision", "idefics3", "gemma3")),
    ],
)
def test_no_shortcut_for_a_processor_that_does_anything_else(image_processor: Any) -> None:
    assert FixedSizePixels.of(image_processor) is None
