"""The corruptions do what they say, to the same images, the same way each time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from src.comparison.corruptions import CORRUPTIONS, choose_images, corrupt
from src.data.source import read_mnist

BLANK = torch.zeros(50, 28, 28, dtype=torch.uint8)
DISC = BLANK.clone()
DISC[:, 10:18, 11:16] = 200


@pytest.fixture(scope="module")
def test_images(mnist: Path) -> tuple[Tensor, Tensor]:
    return read_mnist(mnist, "t10k")


def test_200_images_of_each_digit(test_images: tuple[Tensor, Tensor]) -> None:
    chosen = choose_images(test_images[1])
    assert test_images[1][chosen].bincount().tolist() == [200] * 10
    assert len(chosen.unique()) == 2000
    assert torch.equal(chosen, choose_images(test_images[1]))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_drawn_once_and_the_same_for_all(name: str) -> None:
    state = torch.get_rng_state()
    first, second = corrupt(DISC, name, 2), corrupt(DISC, name, 2)
    assert torch.equal(first, second)
    assert not torch.equal(first, DISC)
    assert first.dtype == torch.uint8
    assert first.shape == DISC.shape
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_greater_strength_changes_more(name: str) -> None:
    change = [(corrupt(DISC, name, step).float() - DISC).abs().mean().item() for step in range(5)]
    assert change == sorted(change)
    assert change[0] < change[-1]


@pytest.mark.parametrize("step", range(5))
def test_shift_moves_by_whole_pixels_in_four_directions(step: int) -> None:
    pixels = step + 1
    expected = [
        DISC[0].roll((rows, columns), (0, 1))
        for rows, columns in ((0, pixels), (0, -pixels), (pixels, 0), (-pixels, 0))
    ]
    moves = {
        index for image in corrupt(DISC, "shift", step) for index in range(4) if torch.equal(image, expected[index])
    }
    assert moves == {0, 1, 2, 3}
    assert all(any(torch.equal(image, moved) for moved in expected) for image in corrupt(DISC, "shift", step))


def test_shift_fills_with_zeros() -> None:
    full = torch.full((20, 28, 28), 255, dtype=torch.uint8)
    assert (corrupt(full, "shift", 4).view(20, -1).float().mean(dim=1) == 255 * 23 / 28).all()


def test_rotation_turns_either_way_by_the_angle() -> None:
    bar = BLANK.clone()
    bar[:, 13:15, 4:24] = 255
    y, x = torch.meshgrid(torch.arange(28.0) - 13.5, torch.arange(28.0) - 13.5, indexing="ij")
    angles = []
    for image in corrupt(bar, "rotation", 3).float():  # 30 degrees
        angle = 0.5 * torch.atan2(2 * (image * x * y).sum(), (image * (x * x - y * y)).sum())
        angles.append(np.degrees(angle.item()))
    assert {round(angle) for angle in angles} == {30, -30}


def test_scale_grows_or_shrinks_by_the_factor() -> None:
    areas = corrupt(DISC, "scale", 3).float().sum(dim=(1, 2)) / DISC[0].float().sum()  # factor 1.5
    assert sorted(areas.unique().tolist()) == pytest.approx([1.5**-2, 1.5**2], rel=0.05)


def test_noise_has_the_standard_deviation() -> None:
    grey = torch.full((50, 28, 28), 128, dtype=torch.uint8)
    assert corrupt(grey, "noise", 0).float().std().item() / 255 == pytest.approx(0.1, rel=0.02)


def test_contrast_pulls_pixels_to_the_mean_of_the_image() -> None:
    mean = DISC[0].float().mean()
    expected = mean + 0.3 * (DISC[0] - mean)
    assert (corrupt(DISC, "contrast", 1)[0].float() - expected).abs().max() <= 0.51


def test_blur_keeps_the_ink_and_spreads_it() -> None:
    blurred = corrupt(DISC, "blur", 1)[0].float()
    assert blurred.sum().item() == pytest.approx(DISC[0].float().sum().item(), rel=0.01)
    assert (blurred > 0).sum() > (DISC[0] > 0).sum()


@pytest.mark.parametrize("step", range(5))
def test_stripes_are_whole_white_rows(step: int) -> None:
    striped = corrupt(BLANK, "stripes", step)
    assert ((striped == 255).all(dim=2).sum(dim=1) == step + 1).all()
    assert (striped.float().sum(dim=(1, 2)) == 255 * 28 * (step + 1)).all()


@pytest.mark.parametrize("step", range(5))
def test_holes_are_black_squares(step: int) -> None:
    side = 4 + 2 * step
    for image in corrupt(torch.full_like(BLANK, 255), "holes", step):
        rows, columns = (image == 0).nonzero(as_tuple=True)
        assert len(rows) == side**2
        assert rows.max() - rows.min() + 1 == columns.max() - columns.min() + 1 == side
