"""The PROJECTOR tab: the features of test images, with label, answer and picture of each."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

IMAGES = 1000
WIDEST = 128  # features of an image; a thousand images with more take several megabytes


def write_features(
    writer: SummaryWriter,
    features_NF: Tensor,
    images_NHW: Tensor,
    labels_N: Tensor,
    answers_N: Tensor,
    classes: Sequence[str],
    epoch: int,
) -> None:
    """Write the features of images, beside the events. Those of an earlier test are replaced."""
    rows = [
        (classes[label], classes[answer]) for label, answer in zip(labels_N.tolist(), answers_N.tolist(), strict=True)
    ]
    pixels_NCHW = images_NHW.unsqueeze(1).float() / 255
    names = ["label", "answer"]
    with redirect_stdout(io.StringIO()):  # torch prints a warning where an earlier test wrote the same files
        writer.add_embedding(_narrow(features_NF), rows, pixels_NCHW, epoch, "features", metadata_header=names)


def _narrow(features_NF: Tensor) -> Tensor:
    """Return the first principal components of features that are too many. Their distances hardly change."""
    if features_NF.shape[1] <= WIDEST:
        return features_NF
    centred_NF = features_NF.double() - features_NF.double().mean(dim=0)
    variances_N, directions_NN = torch.linalg.eigh(centred_NF @ centred_NF.T)  # in ascending order
    return (directions_NN * variances_N.clamp(min=0).sqrt())[:, -WIDEST:].flip(1).float()
