"""Predictions come out in the order of the images, on one device or many."""

import torch
from torchvision.datasets import MNIST

from src.models import LeNet5
from src.processes import gather_shares
from src.training.checkpoints import load_checkpoint
from tests.conftest import ROOT, RunCLI


def test_shares_of_one_device_are_put_together_in_order() -> None:
    rows_NK = torch.arange(14.0).view(7, 2)
    assert torch.equal(gather_shares(list(rows_NK.split(3))), rows_NK)


def test_predict_writes_what_the_network_answers(cli: RunCLI, lenet5_run) -> None:
    checkpoint = lenet5_run / "checkpoints" / "last.ckpt"
    before = checkpoint.read_bytes()
    outcome = cli("predict", f"--ckpt_path={checkpoint}")
    assert outcome.code == 0
    assert f"10,000 predictions: {lenet5_run / 'predictions.csv'}" in outcome.out
    assert checkpoint.read_bytes() == before
    header, *rows = (lenet5_run / "predictions.csv").read_text().splitlines()
    assert header == "image,digit,confidence"
    network = LeNet5().eval()
    network.load_state_dict(load_checkpoint(checkpoint)["state_dict"])
    with torch.no_grad():  # the run was made with plain pixels, 0…1
        logits_NK = network(MNIST(ROOT / "data", train=False).data.unsqueeze(1) / 255)
    confidence_N, digits_N = logits_NK.softmax(1).max(1)
    for image, row in enumerate(rows):
        number, digit, confidence = row.split(",")
        assert int(number) == image
        assert abs(float(confidence) - confidence_N[image]) < 1e-4
        assert int(digit) == digits_N[image]
