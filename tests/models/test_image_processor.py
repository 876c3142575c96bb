"""Image processors take the Pillow path, and give the same numbers, whether torchvision is installed or not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.internvl.processing_internvl import InternVLProcessor

from helpers.family_askers import ASKS
from helpers.tiny_families import tiny
from theodolite.asking.local import LocalAsker
from theodolite.models.export import export_vlm
from theodolite.models.image_processor import settings_hash
from theodolite.models.load import load_vlm
from theodolite.models.pictures import PictureReader
from theodolite.models.processor import ProcessorParts

# A torchvision that transformers takes for a whole one, and of which nothing can be used.
STUB = {
    "__init__.py": '__version__ = "0.30.0"\n',
    "transforms/__init__.py": (
        "from enum import Enum\n"
        "InterpolationMode = Enum('InterpolationMode', 'NEAREST NEAREST_EXACT BILINEAR BICUBIC BOX HAMMING LANCZOS')\n"
    ),
    "transforms/functional.py": "from .v2.functional import __getattr__\n",
    "transforms/v2/__init__.py": "from .. import InterpolationMode\nfrom . import functional\n",
    "transforms/v2/functional.py": (
        "def __getattr__(name):\n"
        "    if name.startswith('__'):\n"
        "        raise AttributeError(name)\n"
        "    def used(*args, **kwargs):\n"
        "        raise AssertionError('torchvision was used: ' + name)\n"
        "    return used\n"
    ),
    "io/__init__.py": "",
}
ASK = """
import json, sys
import numpy as np
import transformers
from transformers import AutoImageProcessor
from transformers.utils import is_torchvision_available
import torch
from PIL import Image
from transformers.models.internvl.processing_internvl import InternVLProcessor

from helpers.family_askers import ASKS
from theodolite.asking.local import LocalAsker
from theodolite.models.image_processor import settings_hash
from theodolite.models.load import load_vlm
from theodolite.models.pictures import PictureReader
from theodolite.models.processor import ProcessorParts

folder, pictures = sys.argv[1], np.load(sys.argv[2])
assert is_torchvision_available()
preferred = AutoImageProcessor.from_pretrained(folder)
model, processor = load_vlm(folder)
given = LocalAsker(model, ProcessorParts(preferred, processor.tokenizer, model.config))
asker = LocalAsker(model, processor)
print(json.dumps({
    "preferred": type(preferred).__name__,
    "classes": [type(each.reader.image_processor).__name__ for each in (asker, given)],
    "settings": [settings_hash(each.reader.image_processor) for each in (asker, given)],
    "answers": [[answer.total_logprob.tolist() for answer in each.ask(pictures, ASKS)] for each in (asker, given)],
}))
"""


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm"])
def test_the_pillow_path_is_taken_where_torchvision_would_be_preferred(name: str, tmp_path: Path) -> None:
    for file, text in STUB.items():
        (tmp_path / "stub" / "torchvision" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "stub" / "torchvision" / file).write_text(text)
    model, image_processor, tokenizer = tiny(name)
    export_vlm(model, ProcessorParts(image_processor, tokenizer, model.config), tmp_path / "model")
    pictures = np.random.default_rng(0).integers(0, 256, (2, 33, 71, 3), dtype=np.uint8)
    np.save(tmp_path / "pictures.npy", pictures)
    path = os.pathsep.join([str(tmp_path / "stub"), str(Path(__file__).parents[1]), *filter(None, sys.path)])
    command = [sys.executable, "-c", ASK, str(tmp_path / "model"), str(tmp_path / "pictures.npy")]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    loaded, processor = load_vlm(tmp_path / "model")
    asker = LocalAsker(loaded, processor)
    kind = type(image_processor).__name__
    assert told["preferred"] == kind.removesuffix("Pil") and told["classes"] == [kind, kind]
    assert told["settings"] == [settings_hash(asker.reader.image_processor)] * 2
    expected = [answer.total_logprob.tolist() for answer in asker.ask(pictures, ASKS)]
    assert told["answers"] == [expected, expected]


@pytest.mark.parametrize("asks_for_tiles", [False, True])
def test_internvl_is_cut_as_its_processor_does_whatever_the_image_processor_says(asks_for_tiles: bool) -> None:
    model, image_processor, tokenizer = tiny("internvl")
    image_processor.crop_to_patches = asks_for_tiles
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8))
    read = PictureReader(image_processor, tokenizer, model.config).read(picture)
    defaults = InternVLProcessor.images_kwargs
    expected = image_processor([picture], return_tensors="pt", **defaults)["pixel_values"]
    assert len(expected) > 1 and torch.equal(read.inputs["pixel_values"], expected)
    image_processor.max_patches = 1
    assert len(PictureReader(image_processor, tokenizer, model.config).read(picture).inputs["pixel_values"]) == 1
