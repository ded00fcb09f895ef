"""The example of 1998 is the network of the paper, and trains as a network of a user does."""

import json

import numpy as np
import torch
from scipy.signal import correlate

from examples.lenet5_1998 import LeNet5_1998
from tests.conftest import SHORT, RunCLI

# Table I of the paper: the inputs of each map of C3.
INPUTS = ["012", "123", "234", "345", "045", "015", "0123", "1234", "2345", "0345", "0145", "0125"]
INPUTS += ["0134", "1245", "0235", "012345"]


def squash(a: np.ndarray) -> np.ndarray:
    return 1.7159 * np.tanh(a * 2 / 3)


def subsample(maps_CHW: np.ndarray, coefficient_C: np.ndarray, bias_C: np.ndarray) -> np.ndarray:
    C, H, W = maps_CHW.shape
    sums_CHW = maps_CHW.reshape(C, H // 2, 2, W // 2, 2).sum(axis=(2, 4))
    return squash(sums_CHW * coefficient_C.reshape(C, 1, 1) + bias_C.reshape(C, 1, 1))


def test_each_layer_has_the_parameters_of_the_paper() -> None:
    network = LeNet5_1998()
    sizes = {name: sum(p.numel() for p in layer.parameters()) for name, layer in network.named_children()}
    assert sizes == {"c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164}
    assert sum(p.numel() for p in network.parameters()) == 60_000


def test_each_map_of_c3_sees_the_maps_of_table_1() -> None:
    c3 = LeNet5_1998().c3
    x_NCHW = torch.randn(1, 6, 14, 14, requires_grad=True)
    for number, inputs in enumerate(INPUTS):
        (gradient_NCHW,) = torch.autograd.grad(c3(x_NCHW)[0, number].sum(), x_NCHW)
        seen = [channel for channel in range(6) if gradient_NCHW[0, channel].any()]
        assert seen == [int(channel) for channel in inputs]


def test_the_logits_are_those_of_a_computation_in_numpy() -> None:
    torch.manual_seed(0)
    network = LeNet5_1998().double()
    x_HW = torch.rand(28, 28, dtype=torch.float64)
    weights = {name: value.numpy() for name, value in network.state_dict().items()}
    pixels_HW = np.full((32, 32), -0.1)
    pixels_HW[2:30, 2:30] = -0.1 * (1 - x_HW.numpy()) + 1.175 * x_HW.numpy()
    kernels_O55, bias_O = weights["c1.weight"][:, 0], weights["c1.bias"]
    pairs = zip(kernels_O55, bias_O, strict=True)
    maps_CHW = squash(np.stack([correlate(pixels_HW, kernel, "valid") + bias for kernel, bias in pairs]))
    maps_CHW = subsample(maps_CHW, weights["s2.coefficient_C11"], weights["s2.bias_C11"])
    kernels = iter(weights["c3.kernels_P55"])
    sums = [sum(correlate(maps_CHW[int(channel)], next(kernels), "valid") for channel in inputs) for inputs in INPUTS]
    maps_CHW = squash(np.stack(sums) + weights["c3.bias_O"].reshape(16, 1, 1))
    maps_CHW = subsample(maps_CHW, weights["s4.coefficient_C11"], weights["s4.bias_C11"])
    outputs_F = squash(weights["c5.weight"] @ maps_CHW.ravel() + weights["c5.bias"])
    outputs_F = squash(weights["f6.weight"] @ outputs_F + weights["f6.bias"])
    distances_K = [((outputs_F - code_F) ** 2).sum() for code_F in network.codes_KF.numpy()]
    with torch.no_grad():
        np.testing.assert_allclose(network(x_HW[None, None])[0], -np.array(distances_K), rtol=1e-9)


def test_each_digit_has_a_code_of_its_own() -> None:
    codes_KF = LeNet5_1998().codes_KF
    assert codes_KF.shape == (10, 84) and bool((codes_KF.abs() == 1).all())
    differences_KK = codes_KF[:, None].ne(codes_KF).sum(dim=2)
    assert differences_KK.fill_diagonal_(84).min() >= 10
    one_HW = codes_KF[1].view(12, 7) > 0  # a stroke from top to bottom
    assert one_HW[1:11, 3].all() and not one_HW[[0, 11]].any()


def test_the_loss_is_equation_9() -> None:
    torch.manual_seed(0)
    network = LeNet5_1998(rejection=60.0)
    x_NCHW, labels_N = torch.rand(4, 1, 28, 28), torch.tensor([3, 1, 4, 1])
    with torch.no_grad():
        y_NK = -network(x_NCHW).double().numpy()
        loss = network.training_step((x_NCHW, labels_N), 0).item()
    expected = np.mean(
        [y[label] + np.log(np.exp(-60.0) + np.exp(-y).sum()) for y, label in zip(y_NK, labels_N, strict=True)]
    )
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_the_learning_rate_falls_as_in_section_3() -> None:
    (optimizer,), (schedule,) = LeNet5_1998(lr=0.0005).configure_optimizers()
    rates = []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, [5e-4] * 2 + [2e-4] * 3 + [1e-4] * 3 + [5e-5] * 4 + [1e-5] * 8)


def test_the_config_trains_it_and_its_checkpoint_is_tested(cli: RunCLI) -> None:
    trained = cli("fit", "--config=examples/lenet5_1998.yaml", *SHORT, "--trainer.limit_test_batches=5")
    assert trained.code == 0, trained.err
    assert trained.run.parent.name == "lenet5_1998"
    results = json.loads((trained.run / "results.json").read_text())
    checkpoint = trained.run / "checkpoints" / "last.ckpt"
    model = "--model=examples.lenet5_1998.LeNet5_1998"
    tested = cli("test", model, f"--ckpt_path={checkpoint}", "--trainer.limit_test_batches=5")
    assert tested.code == 0, tested.err
    assert f"({results['test']['errors']} errors in {results['test']['images']} images)" in tested.out
