"""Affine and elastic distortions, against torchvision and measured displacements."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from src.data import MNISTDataModule
from src.data.distortion import Distortion
from src.system.errors import UserError

DIGIT = torch.zeros(28, 28, dtype=torch.uint8)
DIGIT[6:22, 12:16] = 255
DIGIT[6:10, 12:20] = 128  # not symmetric


@pytest.mark.parametrize(
    ("setting", "largest", "changed"),
    [
        ("max_rotation", 30.0, lambda part: {"angle": -30.0 * part}),
        ("max_scaling", 0.2, lambda part: {"scale": 1 + 0.2 * part}),
        ("max_shear", 20.0, lambda part: {"shear": [20.0 * part, 0.0]}),
    ],
)
def test_affine_distortions_are_those_of_torchvision(setting: str, largest: float, changed) -> None:
    parts = [-1.0, -0.3, 0.0, 0.5, 1.0]
    random_NP = torch.zeros(len(parts), 3)
    random_NP[:, ["max_rotation", "max_scaling", "max_shear"].index(setting)] = torch.tensor(parts)
    distorted_NHW = Distortion(**{setting: largest})(DIGIT.expand(len(parts), 1, 28, 28), random_NP).squeeze(1)
    for part, distorted_HW in zip(parts, distorted_NHW, strict=True):
        arguments = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | changed(part)
        expected = affine(DIGIT[None].float(), **arguments, interpolation=InterpolationMode.BILINEAR)[0]
        torch.testing.assert_close(distorted_HW, expected, rtol=0, atol=0.05)


def displacements(elastic: float, n_images: int) -> Tensor:
    """Measure the elastic displacements, in pixels, (N, 2, 28, 28): distort images whose pixels say where they are."""
    ramp_HW = (4 * torch.arange(28) + 60).to(torch.uint8).expand(28, 28)
    distortion = Distortion(elastic=elastic)
    random_NP = distortion.draw(np.random.default_rng(0), n_images, 28, 28)
    across, down = (
        (distortion(ramp_HW.expand(n_images, 1, 28, 28), random_NP).squeeze(1) - ramp_HW.float()) / 4
        for ramp_HW in (ramp_HW, ramp_HW.T)
    )
    return torch.stack([across, down], dim=1)


def test_elastic_displacements_have_the_given_deviation_everywhere() -> None:
    inside = displacements(elastic=0.8, n_images=5_000)[:, :, 4:-4, 4:-4]
    assert (inside.mean(dim=0).abs() < 0.06).all()
    assert ((inside.std(dim=0) - 0.8).abs() < 0.06).all()
    across, down = inside.movedim(1, 0).flatten(1)
    assert torch.corrcoef(torch.stack([across, down]))[0, 1].abs() < 0.05


def test_elastic_displacements_are_as_smooth_as_those_of_simard() -> None:
    """White noise smoothed by a Gaussian of deviation 4 has the correlation exp(-d² / (4 · 4²)) over d pixels."""
    inside = displacements(elastic=0.8, n_images=5_000)[:, 0, 4:-4, 4:-4]
    for distance in (1, 3, 6):
        pairs = torch.stack([inside[:, :, distance:].flatten(), inside[:, :, :-distance].flatten()])
        assert torch.corrcoef(pairs)[0, 1].item() == pytest.approx(np.exp(-(distance**2) / 64), abs=0.06)


def test_numbers_are_drawn_evenly() -> None:
    random_NP = Distortion(elastic=1).draw(np.random.default_rng(0), 20_000, 28, 28)
    assert random_NP.shape == (20_000, 3 + 2 * 8**2)
    assert random_NP[:, :3].abs().max() <= 1 and random_NP[:, :3].std(dim=0).allclose(torch.tensor(3**-0.5), atol=0.01)
    assert random_NP[:, 3:].std().item() == pytest.approx(1, abs=0.01)


def test_only_training_images_are_distorted(mnist) -> None:
    data = MNISTDataModule(str(mnist), normalize=False, max_shift=3, max_rotation=20, elastic=1)
    data.setup("fit")
    train, val = next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))
    distorted_NCHW, *_ = data.on_after_batch_transfer(train, 0)
    assert (distorted_NCHW * 255 - train.images.unsqueeze(1)).abs().mean() > 1
    assert torch.equal(data.on_after_batch_transfer(val, 0)[0], val.images.unsqueeze(1) / 255)


def test_an_empty_share_stays_empty() -> None:
    distortion = Distortion(max_rotation=10, elastic=1)
    empty = distortion(
        torch.empty(0, 1, 28, 28, dtype=torch.uint8), distortion.draw(np.random.default_rng(0), 0, 28, 28)
    )
    assert empty.shape == (0, 1, 28, 28) and empty.dtype == torch.float32


@pytest.mark.parametrize("setting", ["max_rotation", "max_scaling", "max_shear", "elastic"])
@pytest.mark.parametrize("value", [-1.0, 1e6, float("nan")])
def test_values_out_of_range_are_refused(setting: str, value: float) -> None:
    arguments: Any = {setting: value}
    with pytest.raises(UserError, match=f"^{setting} is {value}; it must be 0 … "):
        MNISTDataModule(**arguments)
