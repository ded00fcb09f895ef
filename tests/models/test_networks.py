"""Both networks have the parameters, the initial weights and the outputs of the published Keras networks."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from src.models import CNN, Classifier, LeNet5
from src.runs.checkpoints import load_checkpoint
from tests.conftest import RunCLI


@pytest.mark.parametrize(("network", "parameters"), [(LeNet5, 545_546), (CNN, 1_199_882)])
def test_number_of_parameters(network: type[Classifier], parameters: int) -> None:
    assert sum(parameter.numel() for parameter in network().parameters()) == parameters


# The Keras networks in NumPy, in Keras's layout: (N, H, W, C), with kernels (height, width, in, out).


def conv(x_NHWC: np.ndarray, kernel_HWIO: np.ndarray, bias_O: np.ndarray, padding: str) -> np.ndarray:
    size = kernel_HWIO.shape[0]
    if padding == "same":
        around = size // 2
        x_NHWC = np.pad(x_NHWC, ((0, 0), (around, around), (around, around), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x_NHWC, (size, size), axis=(1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows, kernel_HWIO, optimize=True) + bias_O


def max_pool(x_NHWC: np.ndarray) -> np.ndarray:
    n, h, w, c = x_NHWC.shape
    return x_NHWC.reshape(n, h // 2, 2, w // 2, 2, c).max(axis=(2, 4))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(x_NK: np.ndarray) -> np.ndarray:
    e = np.exp(x_NK - x_NK.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def keras_weights(network: Classifier) -> dict[str, np.ndarray]:
    """Return the weights in Keras's layout. Keras flattens (H, W, C), torch (C, H, W)."""
    weights = {}
    channels = 0
    for name, layer in network.named_modules():
        name = name.removeprefix("network.")
        if isinstance(layer, nn.Conv2d):
            weights[name] = layer.weight.detach().permute(2, 3, 1, 0).double().numpy()
            channels = layer.out_channels
        elif isinstance(layer, nn.Linear):
            kernel = layer.weight.detach().double()
            if name == "dense1":
                side = math.isqrt(layer.in_features // channels)
                kernel = kernel.view(-1, channels, side, side).permute(0, 2, 3, 1).flatten(1)
            weights[name] = kernel.T.numpy()
        else:
            continue
        assert layer.bias is not None
        weights[f"{name}.bias"] = layer.bias.detach().double().numpy()
    return weights


def keras_lenet5(x_NHWC: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    x = max_pool(relu(conv(x_NHWC, w["conv1"], w["conv1.bias"], "same")))
    x = max_pool(relu(conv(x, w["conv2"], w["conv2.bias"], "same")))
    x = relu(conv(x, w["conv3"], w["conv3.bias"], "same"))
    x = relu(x.reshape(len(x), -1) @ w["dense1"] + w["dense1.bias"])
    return softmax(x @ w["dense2"] + w["dense2.bias"])


def keras_cnn(x_NHWC: np.ndarray, w: dict[str, np.ndarray]) -> np.ndarray:
    x = relu(conv(x_NHWC, w["conv1"], w["conv1.bias"], "valid"))
    x = max_pool(relu(conv(x, w["conv2"], w["conv2.bias"], "valid")))
    x = relu(x.reshape(len(x), -1) @ w["dense1"] + w["dense1.bias"])
    return softmax(x @ w["dense2"] + w["dense2.bias"])


@pytest.mark.parametrize(("network", "keras"), [(LeNet5, keras_lenet5), (CNN, keras_cnn)])
def test_computes_what_the_published_keras_network_computes(network: type[Classifier], keras) -> None:
    torch.manual_seed(0)
    model = network().eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            nn.init.uniform_(parameter, -0.5, 0.5)  # initial zeros would hide a mistake
    x_NCHW = torch.rand(8, 1, 28, 28)
    with torch.no_grad():
        probabilities_NK = model.predict_step((x_NCHW, torch.zeros(8)), 0)
    expected_NK = keras(x_NCHW.permute(0, 2, 3, 1).double().numpy(), keras_weights(model))
    assert np.ptp(expected_NK, axis=1).min() > 0.05  # the outputs differ between the images
    np.testing.assert_allclose(probabilities_NK.numpy(), expected_NK, atol=1e-6)


@pytest.mark.parametrize("network", [LeNet5, CNN])
def test_weights_start_glorot_uniform_and_biases_zero(network: type[Classifier]) -> None:
    torch.manual_seed(0)
    for layer in network().modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            receptive = math.prod(layer.weight.shape[2:])
            limit = math.sqrt(6 / (receptive * (layer.weight.shape[0] + layer.weight.shape[1])))
            assert layer.weight.abs().max() <= limit
            assert layer.weight.abs().max() > 0.97 * limit
            assert layer.weight.std().item() == pytest.approx(
                limit / math.sqrt(3), rel=0.1
            )  # of a uniform distribution
            assert layer.bias is not None and not layer.bias.any()


def test_cnn_drops_a_quarter_and_a_half_in_training_only() -> None:
    torch.manual_seed(0)
    model = CNN()
    x_NCHW = torch.rand(64, 1, 28, 28)
    kept = {}
    for name in ("dropout1", "dropout2"):
        layer = model.network.get_submodule(name)
        layer.register_forward_hook(
            lambda layer, inputs, output, name=name: kept.update({name: (output[inputs[0] != 0] != 0).float().mean()})
        )
    model.train()(x_NCHW)
    assert kept["dropout1"].item() == pytest.approx(0.75, abs=0.01)
    assert kept["dropout2"].item() == pytest.approx(0.5, abs=0.03)
    model.eval()(x_NCHW)
    assert kept["dropout1"] == kept["dropout2"] == 1


@pytest.mark.parametrize("network", [LeNet5, CNN])
def test_empty_share_of_a_batch(network: type[Classifier]) -> None:
    loss = network().training_step((torch.zeros(0, 1, 28, 28), torch.zeros(0, dtype=torch.long)), 0)
    loss.backward()
    assert loss == 0


@pytest.mark.slow
def test_a_compiled_network_learns_the_same_and_keeps_its_keys(cli: RunCLI) -> None:
    short = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=20", "--trainer.limit_val_batches=2")
    plain, compiled = (cli("fit", "--model=LeNet5", *short, *extra).run for extra in ((), ("--model.compile=true",)))
    weights = [load_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"] for run in (plain, compiled)]
    assert weights[0].keys() == weights[1].keys()
    losses = [json.loads((run / "results.json").read_text())["test"]["loss"] for run in (plain, compiled)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    tested = cli(
        "test", f"--ckpt_path={compiled / 'checkpoints' / 'last.ckpt'}", "--model=LeNet5", "--model.compile=false"
    )
    assert f"loss {losses[1]:.4f}" in tested.out
