"""Ends `fit` after its first training step."""

import os
from typing import Any

from lightning import Callback


class FirstStep(Callback):
    def on_train_batch_end(self, *args: Any) -> None:
        os._exit(0)
