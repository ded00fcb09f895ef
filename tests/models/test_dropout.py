"""Dropout from random bytes has the distribution of nn.Dropout."""

import pytest
import torch
from scipy import stats
from torch import nn

from src.models.dropout import Dropout


@pytest.mark.parametrize("p", [0.25, 0.5, 0.75])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_elements_are_dropped_independently_with_probability_p(p: float, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    x_NCHW = torch.ones(128, 64, 12, 11).to(memory_format=layout)
    dropped_N = Dropout(p)(x_NCHW).eq(0).permute(0, 2, 3, 1).flatten()  # neighbours in memory, if channels last
    # Groups of eight elements share a random number of 64 bits: all 256 patterns must have their probability.
    patterns = dropped_N.view(-1, 8).long() @ torch.tensor([1 << bit for bit in range(8)])
    expected = torch.tensor([p ** n.bit_count() * (1 - p) ** (8 - n.bit_count()) for n in range(256)])
    counts = torch.bincount(patterns, minlength=256)
    often = expected * len(patterns) > 5
    assert stats.chisquare(counts[often], (expected / expected[often].sum() * counts[often].sum())[often]).pvalue > 1e-3


def test_what_is_kept_is_scaled_and_its_gradient_too() -> None:
    x_NK = torch.randn(50, 30, requires_grad=True)
    y_NK = Dropout(0.25)(x_NK)
    y_NK.sum().backward()
    kept = y_NK != 0
    assert torch.allclose(y_NK, x_NK * kept / 0.75) and 0 < kept.float().mean() < 1
    assert x_NK.grad is not None and torch.allclose(x_NK.grad, kept / 0.75)


def test_memory_layout_is_kept() -> None:
    x_NCHW = torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert Dropout(0.5)(x_NCHW).is_contiguous(memory_format=torch.channels_last)
    assert Dropout(0.5)(torch.ones(6, 8)[:, ::3]).shape == (6, 3)  # not dense


@pytest.mark.parametrize("p", [0.1, 0.0, 1.0])
def test_other_probabilities_are_those_of_torch(p: float) -> None:
    results = []
    for layer in (Dropout(p), nn.Dropout(p)):
        torch.manual_seed(1)
        results.append(layer(torch.ones(1000)))
    assert torch.equal(*results)


def test_nothing_is_dropped_in_evaluation() -> None:
    x_NK = torch.randn(5, 7)
    assert torch.equal(Dropout(0.5).eval()(x_NK), x_NK)


def test_random_numbers_come_from_torchs_generator() -> None:
    """So a resumed training drops the same elements."""
    layer, x_N = Dropout(0.5), torch.ones(1000)
    torch.manual_seed(1)
    first, second = layer(x_N), layer(x_N)
    torch.manual_seed(1)
    assert torch.equal(layer(x_N), first) and not torch.equal(first, second)
