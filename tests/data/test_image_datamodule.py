"""Any images through the base: colour, another size, another number of classes, in a plain Trainer."""

import copy
import pickle
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy import ndimage
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine

from src.data import Batch, ImageDataModule, MNISTDataModule
from src.data.distortion import Distortion
from src.system.errors import UserError
from tests.conftest import write_idx
from tests.tiny import Tiny

SHAPE, K = (3, 20, 24), 5
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def coloured(split: str) -> tuple[Tensor, Tensor]:
    """400 and 103 images. The level of each channel, and where a bright spot is, depend on the class."""
    random = np.random.default_rng(len(split))
    labels_N = random.integers(0, K, 400 if split == "train" else 103)
    images_NCHW = random.integers(0, 100, (len(labels_N), *SHAPE))
    images_NCHW[:, 1] += 20 * labels_N[:, None, None]
    images_NCHW[np.arange(len(labels_N)), 0, 4 * (labels_N % 5), 10] = 255
    return torch.from_numpy(images_NCHW.astype(np.uint8)), torch.from_numpy(labels_N)


class Coloured(ImageDataModule):
    def load(self, split: Literal["train", "test"]) -> tuple[Any, Any]:
        return coloured(split)


class Plain(LightningModule):
    """Knows nothing of this package: a batch is `x, y`."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9 * 11, K))
        self.seen: list[Any] = []
        self.n_correct = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.seen.append((x.shape, x.dtype, y.shape))
        return F.cross_entropy(self(x), y)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.n_correct += int((self(x).argmax(dim=1) == y).sum())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)


AUGMENTED: dict[str, Any] = {
    "max_shift": 1,
    "max_rotation": 5,
    "max_scaling": 0.1,
    "max_shear": 5,
    "elastic": 0.3,
    "val_size": 50,
}


@pytest.mark.parametrize("precision", ["32-true", "64-true", "bf16-true"])
def test_a_plain_network_learns_colour_images_of_another_size(precision: Any) -> None:
    torch.manual_seed(0)
    data, network = Coloured(batch_size=32, **AUGMENTED), Plain()
    trainer = Trainer(max_epochs=4, precision=precision, enable_checkpointing=False, **QUIET)
    trainer.fit(network, datamodule=data)
    dtype = {"64-true": torch.float64, "bf16-true": torch.bfloat16}.get(precision, torch.float32)
    assert network.seen[:11] == [((n, *SHAPE), dtype, (n,)) for n in [32] * 10 + [30]]
    trainer.test(network, datamodule=data, verbose=False)
    assert network.n_correct > 0.9 * 103  # chance is 0.2
    assert (data.classes, data.shape) == (["0", "1", "2", "3", "4"], SHAPE)
    assert len(data.val[1]) == 50


def test_a_training_resumed_inside_an_epoch_ends_with_the_same_weights(tmp_path: Path) -> None:
    def train(ckpt_path: Path | None = None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        saved = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=8, save_top_k=-1)
        trainer = Trainer(max_epochs=2, callbacks=[saved], **QUIET)
        network = Plain()
        trainer.fit(network, datamodule=Coloured(batch_size=64, **AUGMENTED), ckpt_path=ckpt_path)
        assert trainer.global_step == 12
        return network.state_dict()

    whole = train()
    resumed = train(tmp_path / "step=8.ckpt")  # in the middle of the second epoch, of six steps
    for name, weights in whole.items():
        assert torch.equal(resumed[name], weights)


def test_each_channel_is_normalised_by_its_own_statistics() -> None:
    data = Coloured()
    data.setup("fit")
    pixels = coloured("train")[0].numpy() / 255
    x_NCHW = data.preprocess(data.train[0])
    assert data.mean == pytest.approx(pixels.mean(axis=(0, 2, 3)).tolist(), rel=1e-12)
    assert data.std == pytest.approx(pixels.std(axis=(0, 2, 3)).tolist(), rel=1e-12)
    torch.testing.assert_close(x_NCHW.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(x_NCHW.std(dim=(0, 2, 3)), torch.ones(3), rtol=0, atol=1e-4)
    assert torch.equal(Coloured(normalize=False).preprocess(data.train[0]), data.train[0] / 255)


def test_own_mean_and_std_are_used() -> None:
    class Own(Coloured):
        mean, std = (0.1, 0.2, 0.3), 0.5

    data = Own()
    data.setup("test")
    expected = (coloured("test")[0].numpy() / 255 - np.array([0.1, 0.2, 0.3])[:, None, None]) / 0.5
    torch.testing.assert_close(data.preprocess(data.test[0]), torch.from_numpy(expected).float())


def test_a_checkpoint_has_what_evaluation_needs(tmp_path: Path) -> None:
    class Without(ImageDataModule):
        def load(self, split: str) -> Any:
            raise AssertionError("the images are gone")

    class Named(Coloured):
        classes = list("abcde")

    trainer = Trainer(max_epochs=1, limit_train_batches=1, default_root_dir=tmp_path, **QUIET)
    data = Named()
    trainer.fit(Plain(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    restored = Without()
    restored.load_state_dict(saved[Named.__qualname__])
    assert (restored.classes, restored.shape) == (list("abcde"), SHAPE)
    images_NCHW = coloured("test")[0]
    assert torch.equal(restored.preprocess(images_NCHW), data.preprocess(images_NCHW))


# --- Augmentation --------------------------------------------------------------------------------------------


def test_first_batches_of_mnist_are_those_of_the_formula(mnist: Path) -> None:
    """The order of epoch e is that of NumPy's generator of (seed, e). It then draws the shifts."""
    data = MNISTDataModule(str(mnist), seed=4, max_shift=2)
    data.setup("fit")
    loader = data.train_dataloader()
    for epoch in (0, 2):
        loader.set_epoch(epoch)
        random = np.random.default_rng((4, epoch))
        order_N = random.permutation(60_000)
        shifts_N2 = random.integers(-2, 2, (60_000, 2), endpoint=True)
        for number, batch in zip(range(2), loader, strict=False):
            x_NCHW, labels_N = data.on_after_batch_transfer(batch, 0)
            chosen = slice(128 * number, 128 * (number + 1))
            pixels = np.stack(
                [
                    ndimage.shift(data.train[0][image].numpy(), move, order=0)
                    for image, move in zip(order_N[chosen], shifts_N2[chosen], strict=True)
                ]
            )
            expected = (pixels.astype(np.float32) / np.float32(255) - np.float32(0.1307)) / np.float32(0.3081)
            assert np.array_equal(x_NCHW[:, 0], expected)
            assert torch.equal(labels_N, data.train[1][order_N[chosen]])


def test_first_rotations_of_mnist_are_those_of_the_formula(mnist: Path) -> None:
    """The angles of batch b are the first column of what NumPy's generator of (seed, epoch, b) draws."""
    data = MNISTDataModule(str(mnist), seed=4, max_rotation=20, normalize=False, batch_size=64)
    data.setup("fit")
    loader = data.train_dataloader()
    loader.set_epoch(1)
    batches = iter(loader)
    for number in range(2):
        batch = next(batches)
        turned_NCHW, _ = data.on_after_batch_transfer(batch, 0)
        angles_N = -20 * np.random.default_rng((4, 1, number)).uniform(-1, 1, (64, 3))[:, 0]
        for turned_CHW, image_HW, angle in zip(turned_NCHW, batch.images, angles_N, strict=True):
            expected = affine(
                image_HW[None].float(), angle, [0, 0], 1.0, [0.0], interpolation=InterpolationMode.BILINEAR
            )
            torch.testing.assert_close(255 * turned_CHW, expected, rtol=0, atol=0.05)


def test_all_channels_of_an_image_are_shifted_together() -> None:
    data = Coloured(normalize=False, max_shift=19, batch_size=100)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.shifts_N2 is not None
    expected = [
        ndimage.shift(image, (0, *move), order=0) for image, move in zip(batch.images, batch.shifts_N2, strict=True)
    ]
    x_NCHW, _ = data.on_after_batch_transfer(batch, 0)
    assert np.array_equal(255 * x_NCHW, np.stack(expected))


@pytest.mark.parametrize("size", [(20, 31), (64, 40)])
def test_distortion_of_images_that_are_not_square(size: tuple[int, int]) -> None:
    image_CHW = torch.from_numpy(ndimage.gaussian_filter(np.random.default_rng(0).random((3, *size)), (0, 2, 2)))
    image_CHW = (255 * image_CHW / image_CHW.max()).to(torch.uint8)
    random_NP = torch.tensor([[0.7, 0.0, 0.0], [0.0, 0.0, -0.6], [0.5, 0.4, 0.3]])
    both = Distortion(max_rotation=30, max_scaling=0.2, max_shear=20)(image_CHW.expand(3, 3, *size), random_NP)
    turned, sheared, _ = both
    bilinear = InterpolationMode.BILINEAR
    expected = affine(image_CHW.float(), -21.0, [0, 0], 1.0, [0.0, 0.0], interpolation=bilinear)
    torch.testing.assert_close(turned, expected, rtol=0, atol=0.05)
    expected = affine(image_CHW.float(), 0.0, [0, 0], 1.0, [-12.0, 0.0], interpolation=bilinear)
    torch.testing.assert_close(sheared, expected, rtol=0, atol=0.05)


def test_elastic_displacements_have_the_given_deviation_in_large_images_too() -> None:
    distortion, (height, width) = Distortion(elastic=0.8), (48, 60)
    random_NP = distortion.draw(np.random.default_rng(0), 2_000, height, width)
    ramp_HW = torch.arange(width).expand(height, width).to(torch.uint8) * 4
    ramp_1CHW = torch.stack([ramp_HW, (4 * torch.arange(height))[:, None].expand(height, width).to(torch.uint8)])[None]
    distorted = distortion(ramp_1CHW.expand(2_000, -1, -1, -1), random_NP)
    inside = (distorted - ramp_1CHW)[:, :, 4:-4, 4:-4] / 4
    assert (inside.mean(dim=0).abs() < 0.1).all()
    assert ((inside.std(dim=0) - 0.8).abs() < 0.09).all()


# --- Pairs ---------------------------------------------------------------------------------------------------


def test_a_batch_is_a_pair_with_a_weight() -> None:
    data = Coloured(batch_size=64)
    data.setup("fit")
    batch: Any = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert type(batch) is Batch and len(batch) == 2 and batch.weight == 1 / 64
    for copied in (copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert type(copied) is Batch and torch.equal(copied[0], batch[0]) and copied.weight == 1 / 64
    assert Batch([batch[0], batch[1]]).weight is None  # as functions rebuild tuples


def test_classifier_takes_an_ordinary_dataloader() -> None:
    """Its weights are those of a plain loop over the same loader, also for a short last batch."""
    random = torch.Generator().manual_seed(0)
    dataset = TensorDataset(torch.rand(70, 1, 28, 28, generator=random), torch.randint(10, (70,), generator=random))
    loader = DataLoader(dataset, batch_size=32)
    network = Tiny(lr=0.01)
    expected = copy.deepcopy(network)
    Trainer(max_epochs=2, enable_checkpointing=False, **QUIET).fit(network, loader)
    optimizer = torch.optim.Adam(expected.parameters(), lr=0.01, eps=1e-7)
    for _ in range(2):
        for x, y in loader:
            optimizer.zero_grad()
            F.cross_entropy(expected(x), y).backward()
            optimizer.step()
    for ours, plain in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, plain, rtol=0, atol=1e-6)


# --- What does not fit ---------------------------------------------------------------------------------------


ZEROS = torch.zeros(4, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "settings", "message"),
    [
        (ZEROS.float(), [0, 1, 0, 1], {}, r"images as uint8, .*; it returned float32, \(4, 8, 8\)\."),
        (ZEROS[0], [0] * 8, {}, r"\(N, H, W\) or \(N, C, H, W\); it returned uint8, \(8, 8\)\."),
        (ZEROS.unsqueeze(3), [0, 1, 0, 1], {}, r"\(N, C, H, W\); it returned uint8, \(4, 8, 8, 1\)"),
        (ZEROS[:0], [], {}, r"it returned uint8, \(0, 8, 8\)"),
        (ZEROS, [0, 1, 0], {}, r"a whole number for each of 4 images; it returned int64, \(3,\)"),
        (ZEROS, [0.0, 1.0, 0.0, 1.0], {}, "a whole number for each of 4 images; it returned float32"),
        (ZEROS, [0, 1, -1, 1], {}, "has the label -1; with 2 classes, labels are 0 … 1"),
        (ZEROS, [0, 1, 1, 2], {"classes": ["a", "b"]}, "has the label 2; with 2 classes, labels are 0 … 1"),
        (ZEROS, [0, 1, 1, 2], {"mean": [0.1, 0.2, 0.3]}, "mean has 3 values, but the images have 1 channels"),
    ],
)
def test_images_that_do_not_fit_are_refused(
    images: Tensor, labels: Any, settings: dict[str, Any], message: str
) -> None:
    class Wrong(ImageDataModule):
        def load(self, split: str) -> Any:
            return images, labels

    data = Wrong()
    for name, value in settings.items():
        setattr(data, name, value)
    with pytest.raises(UserError, match=message) as refused:
        data.prepare_data()
    assert "\n" not in str(refused.value)


def test_splits_of_different_classes_are_refused() -> None:
    class Wrong(ImageDataModule):
        def load(self, split: str) -> Any:
            self.classes = ["cat", "dog"] if split == "train" else ["dog", "horse"]
            return ZEROS, [0, 1, 0, 1]

    with pytest.raises(UserError, match=r"load\('test'\) has the classes \['dog', 'horse'\], not \['cat', 'dog'\]"):
        Wrong().prepare_data()


def test_splits_of_different_sizes_are_refused() -> None:
    class Wrong(ImageDataModule):
        def load(self, split: str) -> Any:
            size = 8 if split == "train" else 9
            return torch.zeros(2, 3, size, size, dtype=torch.uint8), [0, 1]

    with pytest.raises(UserError, match=r"\('test'\) has images of shape \(3, 9, 9\), but the others have \(3, 8, 8\)"):
        Wrong().prepare_data()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_shift": 20}, "max_shift is 20; it must be 0 … 19 pixels"),
        ({"max_shift": -1}, "max_shift is -1; it must be at least 0"),
        ({"val_size": 400}, "val_size is 400; it must be 0 … 399 of the 400 training images"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Coloured(**settings).setup("fit")


def test_own_idx_files_of_another_size_and_number_of_classes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, number in (("train", 30), ("t10k", 20)):
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", random.integers(0, 256, (number, 16, 12)))
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte", np.arange(number) % 3)
    data = MNISTDataModule(str(tmp_path), classes=["a", "b", "c"], max_rotation=5, max_shift=2)
    data.prepare_data()
    data.setup("fit")
    x_NCHW, labels_N = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert x_NCHW.shape == (30, 1, 16, 12) and sorted(labels_N.tolist()) == 10 * [0] + 10 * [1] + 10 * [2]
    assert torch.equal(data.preprocess(data.test[0])[:, 0], (data.test[0] / 255 - 0.1307) / 0.3081)
