"""The published Keras program, in blocks as the other contenders.

``python keras_program.py NETWORK DATA_DIR [EPOCHS [SEED]]``

With EPOCHS it trains whole epochs instead, and prints the test accuracy after each as JSON.
"""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
from keras import layers
from turns import Turns

name, data_dir, *more = sys.argv[1:]
epochs, seed = (*map(int, more), 0, 0)[:2]
keras.utils.set_random_seed(seed)  # before the layers are made: each draws the seed of its weights then

TIMES = int(os.environ.get("TIMES", 1))  # as many steps in a block
BATCH, TRAIN_STEPS, VAL_STEPS = 128, 50 * TIMES, 10 * TIMES
NETWORKS = {
    "lenet5": [
        layers.Conv2D(6, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(16, 5, padding="same", activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(120, 5, padding="same", activation="relu"),
        layers.Flatten(),
        layers.Dense(84, activation="relu"),
        layers.Dense(10, activation="softmax"),
    ],
    "cnn": [
        layers.Conv2D(32, 3, activation="relu"),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Dropout(0.25),
        layers.Flatten(),
        layers.Dense(128, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(10, activation="softmax"),
    ],
}


class Block(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.turns = Turns()

    def on_epoch_begin(self, epoch, logs=None):
        self.turns.next()


def read(data_dir: str, part: str) -> tuple[np.ndarray, np.ndarray]:
    raw = Path(data_dir, "MNIST", "raw")
    images = np.fromfile(raw / f"{part}-images-idx3-ubyte", np.uint8)[16:].reshape(-1, 28, 28, 1)
    labels = np.fromfile(raw / f"{part}-labels-idx1-ubyte", np.uint8)[8:]
    return images.astype("float32") / 255, keras.utils.to_categorical(labels, 10)


(x_train, y_train), (x_test, y_test) = read(data_dir, "train"), read(data_dir, "t10k")
model = keras.Sequential([keras.Input((28, 28, 1)), *NETWORKS[name]])
model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
if epochs:
    history = model.fit(x_train, y_train, BATCH, epochs, validation_data=(x_test, y_test), verbose=2)
    print(json.dumps(history.history["val_accuracy"]))
else:
    train, test = slice(BATCH * TRAIN_STEPS), slice(BATCH * VAL_STEPS)
    model.fit(
        x_train[train],
        y_train[train],
        BATCH,
        epochs=1_000_000,
        validation_data=(x_test[test], y_test[test]),
        callbacks=[Block()],
        verbose=2,
    )
