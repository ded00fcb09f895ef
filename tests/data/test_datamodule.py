"""The DataModule: normalisation, shifts, the held-out images, and the images of each stage."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

from src.data import MNISTDataModule
from src.data.datamodule import stratified_sample
from src.system.errors import UserError


@pytest.mark.parametrize("normalize", [True, False])
def test_pixels_are_those_of_the_usual_torchvision_transforms(mnist: Path, normalize: bool) -> None:
    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))] if normalize else [ToTensor()])
    reference = MNIST(mnist, train=False, transform=transform)
    data = MNISTDataModule(str(mnist), batch_size=50, normalize=normalize)
    data.setup("test")
    x_NCHW, labels_N = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    expected_NCHW = torch.stack([reference[n][0] for n in range(50)])
    assert x_NCHW.shape == (50, 1, 28, 28)
    torch.testing.assert_close(x_NCHW, expected_NCHW, rtol=0, atol=1e-6)
    assert labels_N.tolist() == [reference[n][1] for n in range(50)]


def test_normalised_training_pixels_have_mean_0_and_deviation_1(mnist: Path) -> None:
    data = MNISTDataModule(str(mnist), batch_size=60_000)
    data.setup("fit")
    x_NCHW = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)[0]
    assert x_NCHW.mean().item() == pytest.approx(0, abs=1e-3)
    assert x_NCHW.std().item() == pytest.approx(1, abs=1e-3)


def test_loaded_images_are_not_changed_by_normalisation(mnist: Path) -> None:
    data = MNISTDataModule(str(mnist))
    data.setup("test")
    before = data.test[0].clone()
    for batch in data.test_dataloader():
        data.on_after_batch_transfer(batch, 0)
    assert torch.equal(data.test[0], before)


def test_each_training_image_is_moved_by_its_own_shift(mnist: Path) -> None:
    data = MNISTDataModule(str(mnist), normalize=False, max_shift=3)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.shifts_N2 is not None
    moved_NCHW = data.on_after_batch_transfer(batch, 0)[0]
    expected = [ndimage.shift(image, move, order=0) for image, move in zip(batch.images, batch.shifts_N2, strict=True)]
    assert torch.equal(moved_NCHW[:, 0] * 255, torch.from_numpy(np.stack(expected)).float())


def test_validation_is_on_the_test_images_by_default(mnist: Path) -> None:
    data = MNISTDataModule(str(mnist))
    data.setup("fit")
    assert len(data.train[1]) == 60_000
    assert torch.equal(data.val[0], MNIST(mnist, train=False).data)


def test_held_out_images_come_from_the_training_set_and_the_test_images_stay_unseen(
    mnist: Path, tmp_path: Path
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("images-idx3", "labels-idx1"):
        shutil.copy(mnist / "MNIST" / "raw" / f"train-{kind}-ubyte", raw)  # there are no test images
    data = MNISTDataModule(str(tmp_path), val_size=5_000)
    data.setup("fit")
    assert (len(data.train[1]), len(data.val[1])) == (55_000, 5_000)
    together = torch.cat([data.train[0], data.val[0]]).flatten(1)
    everything = MNIST(mnist, train=True).data.flatten(1)
    checksum = torch.arange(1.0, 785, dtype=torch.double)
    assert torch.equal((together.double() @ checksum).sort().values, (everything.double() @ checksum).sort().values)
    validate = MNISTDataModule(str(tmp_path), val_size=5_000)
    validate.setup("validate")
    assert torch.equal(validate.val[0], data.val[0])


@pytest.mark.parametrize("size", [0, 1, 10, 4_999, 5_000, 59_999])
def test_stratified_sample_keeps_proportions(size: int) -> None:
    labels_N = torch.repeat_interleave(torch.arange(10), torch.arange(1, 11) * 1_200)[:60_000]
    labels_N = labels_N[torch.randperm(len(labels_N))]
    chosen_N = stratified_sample(labels_N, size, seed=1)
    assert chosen_N.sum() == size
    counts = torch.bincount(labels_N[chosen_N], minlength=10)
    expected = torch.bincount(labels_N, minlength=10) * size / len(labels_N)
    assert (counts - expected).abs().max() <= 1
    assert torch.equal(chosen_N, stratified_sample(labels_N, size, seed=1))
    if 1 < size < 59_999:
        assert not torch.equal(chosen_N, stratified_sample(labels_N, size, seed=2))


@pytest.mark.parametrize("batch_size", [0, -3])
def test_batch_size_out_of_range(batch_size: int) -> None:
    with pytest.raises(UserError, match=f"batch_size is {batch_size}"):
        MNISTDataModule(batch_size=batch_size)


@pytest.mark.parametrize("val_size", [60_000, -1])
def test_val_size_out_of_range(mnist: Path, val_size: int) -> None:
    with pytest.raises(UserError, match=f"val_size is {val_size}; it must be 0 … 59,999 of the 60,000"):
        MNISTDataModule(str(mnist), val_size=val_size).prepare_data()
