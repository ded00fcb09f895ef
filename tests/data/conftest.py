"""For the tests of pictures."""

from pathlib import Path

import numpy as np
import pytest

from src.data.source import read_mnist


@pytest.fixture(scope="module")
def digits(mnist: Path) -> np.ndarray:
    return read_mnist(mnist, "t10k")[0][:12].numpy()
