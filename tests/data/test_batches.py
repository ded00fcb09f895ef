"""Global batches are the same for any number of devices, and each image counts once with the same weight."""

from collections.abc import Iterable
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from src.data import GlobalBatches, RawBatch
from src.data.distortion import Distortion
from src.system.errors import UserError


def batches(images: int, batch_size: int, **kwargs) -> GlobalBatches:
    """Make a data set in which all pixels of image n are n, and its label is n."""
    numbers = torch.arange(images)
    return GlobalBatches(numbers.to(torch.uint8).view(-1, 1, 1).expand(-1, 2, 2), numbers, batch_size, **kwargs)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize(("images", "batch_size"), [(100, 8), (97, 32), (9, 8), (5, 100)])
@pytest.mark.parametrize("seed", [None, 1])
def test_devices_share_the_batches_of_one_device(images: int, batch_size: int, world_size: int, seed: int) -> None:
    random = {"seed": seed, "max_shift": 2, "distortion": Distortion(max_rotation=10)}
    alone = list(batches(images, batch_size, **random))
    devices = [batches(images, batch_size, **random, rank=rank, world_size=world_size) for rank in range(world_size)]
    shared = list(zip(*devices, strict=True))
    assert len(shared) == len(alone) == len(devices[0])
    for whole, shares in zip(alone, shared, strict=True):
        assert torch.equal(torch.cat([share.labels_N for share in shares]), whole.labels_N)
        assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
        assert torch.equal(shifts_of(shares), shifts_of([whole]))
        assert torch.equal(numbers_of(shares), numbers_of([whole]))
        assert max(len(s.labels_N) for s in shares) - min(len(s.labels_N) for s in shares) <= 1
    assert sorted(torch.cat([batch.labels_N for batch in alone]).tolist()) == list(range(images))


def shifts_of(shares: Iterable[RawBatch]) -> torch.Tensor:
    return torch.cat([share.shifts_N2 for share in shares if share.shifts_N2 is not None])


def numbers_of(shares: Iterable[RawBatch]) -> torch.Tensor:
    return torch.cat([share.random_NP for share in shares if share.random_NP is not None])


def test_numbers_of_the_distortions_are_drawn_anew_for_each_batch_and_epoch() -> None:
    loader = batches(50, 10, seed=1, distortion=Distortion(elastic=1))
    first = list(loader)
    loader.set_epoch(1)
    numbers = torch.cat(
        [numbers_of(first), numbers_of(loader), numbers_of(batches(50, 10, seed=2, distortion=Distortion(elastic=1)))]
    )
    assert len(numbers.unique(dim=0)) == 150
    loader.set_epoch(0)
    loader.load_state_dict({"epoch": 0, "position": 3})  # as when a training is resumed
    assert torch.equal(numbers_of(loader), numbers_of(first[3:]))


def test_shifts_are_drawn_evenly_and_anew_in_each_epoch() -> None:
    loader = batches(10_000, 128, seed=1, max_shift=2)
    epochs = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        epochs.append(shifts_of(loader))
        counts = torch.bincount((epochs[-1] + 2) @ torch.tensor([5, 1]), minlength=25)
        assert stats.chisquare(counts).pvalue > 1e-3  # all 25 shifts are equally frequent
    assert not torch.equal(epochs[0], epochs[1])
    loader.set_epoch(1)
    assert torch.equal(shifts_of(loader), epochs[1])


def test_image_and_label_stay_together() -> None:
    for batch in batches(100, 8, seed=3):
        assert torch.equal(batch.images[:, 0, 0].long(), batch.labels_N)


def order(seed: int | None, epoch: int) -> list[int]:
    loader = batches(200, 32, seed=seed)
    iterator = iter(loader)  # Lightning calls iter() before set_epoch()
    loader.set_epoch(epoch)
    return [label for batch in iterator for label in batch.labels_N.tolist()]


def test_order_is_a_pure_function_of_seed_and_epoch() -> None:
    torch.manual_seed(1)
    first = order(seed=5, epoch=2)
    torch.manual_seed(2)
    assert order(seed=5, epoch=2) == first
    orders = [tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16
    assert order(seed=None, epoch=3) == list(range(200))


def test_position_in_an_epoch_is_kept() -> None:
    def take(loader: GlobalBatches, epoch: int, count: int) -> list[list[int]]:
        loader.set_epoch(epoch)
        return [batch.labels_N.tolist() for batch in islice(loader, count)]

    whole = batches(100, 8, seed=1)
    expected = {epoch: take(whole, epoch, 13) for epoch in (0, 1)}
    for cut in range(13):
        first = batches(100, 8, seed=1)
        take(first, 0, cut)
        second = batches(100, 8, seed=1)
        second.load_state_dict(first.state_dict())
        assert take(second, 0, 13) == expected[0][cut:]
        assert take(second, 1, 13) == expected[1]
        third = batches(100, 8, seed=1)
        third.load_state_dict(first.state_dict())
        assert take(third, 1, 13) == expected[1]  # as when a limit of batches ends epoch 0 there
    assert take(whole, 1, 2) == take(whole, 1, 2)  # a validation that stops early starts again at the first batch


def test_a_position_in_batches_of_another_size_is_refused() -> None:
    loader = batches(100, 8, seed=1)
    for position in (3, 13):
        list(islice(loader, position))
        other = batches(100, 4, seed=1)
        other.load_state_dict(loader.state_dict())
        if position == 3:
            with pytest.raises(UserError, match=r"inside an epoch of batches of 8 images, so batch_size cannot be 4\."):
                list(other)
        else:  # the epoch has ended
            assert len(list(other)) == 25


def test_weighted_losses_average_to_the_mean_over_the_global_batch() -> None:
    images, world_size = 11, 4
    logits_NK = torch.randn(images, 10, dtype=torch.float64)
    labels_N = torch.randint(10, (images,))
    data = logits_NK.unsqueeze(1), labels_N  # the "images" are the logits
    losses = [
        weight * F.cross_entropy(share.squeeze(1), labels, reduction="sum")
        for rank in range(world_size)
        for share, labels, weight, *_ in GlobalBatches(*data, batch_size=images, rank=rank, world_size=world_size)
    ]
    assert torch.stack(losses).mean().item() == pytest.approx(F.cross_entropy(logits_NK, labels_N).item(), rel=1e-12)


def test_mnist_has_469_steps_of_128() -> None:
    loader = GlobalBatches(torch.zeros(60_000, 1, 1), torch.zeros(60_000), batch_size=128)
    assert len(loader) == 469
    assert [len(batch.labels_N) for batch in loader] == [128] * 468 + [96]
