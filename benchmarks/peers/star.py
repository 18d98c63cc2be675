"""StarDist (Schmidt et al. 2018): trained here on the images our own network trains on, then counting with its defaults.

Network, normalisation, augmentation and prediction are those of its 2D example notebooks. Two things are not: training ends
after a given time, and the learning rate falls to nearly nothing over the last part of that time, which favours it over a
training that is merely cut off.

It runs in an environment of its own: this file imports nothing of cellcount.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.manifest import Entry, Plane

if TYPE_CHECKING:
    from stardist.models import StarDist2D  # type: ignore[import-not-found]

    from benchmarks.peers.systems import Count

REQUIREMENTS = (
    "stardist==0.9.2",
    "csbdeep==0.8.2",
    "tensorflow-cpu==2.21.0",
    "keras==3.15.1",
    "numpy==2.4.6",
    "opencv-python-headless==5.0.0.93",
)
"""What pip installs into its environment."""

RAYS, GRID, PATCH, BATCH = 32, (2, 2), 256, 4
STEPS_AN_EPOCH = 100
RATE, LAST_RATE, DECAY_SHARE = 3e-4, 3e-6, 0.35
MODEL, STATE = "stardist", "training.json"
SEED = 0


def prepare_threads() -> None:
    """One thread for TensorFlow's arithmetic and one for its scheduling. Called before anything else of TensorFlow."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def normalised(plane: Plane) -> NDArray[np.float32]:
    """An image (H, W) with its 1st percentile at 0 and its 99.8th at 1."""
    from csbdeep.utils import normalize  # type: ignore[import-not-found]

    return np.asarray(normalize(plane, 1, 99.8), np.float32)


def padded(array: NDArray[np.generic], side: int = PATCH) -> NDArray[np.generic]:
    """An array (H, W) mirrored at its lower and right edge until no side is below `side` px."""
    grow = [(0, max(0, side - length)) for length in array.shape]
    return np.pad(array, grow, mode="symmetric")


def augmented(
    image: NDArray[np.float32], labels: NDArray[np.int32], rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Image and labels (H, W) flipped and turned alike; gain 0.6-2, offset ±0.2 and noise on the image."""
    turns = int(rng.integers(4))
    image, labels = np.rot90(image, turns), np.rot90(labels, turns)
    if rng.random() < 0.5:
        image, labels = image[:, ::-1], labels[:, ::-1]
    image = image * np.float32(rng.uniform(0.6, 2)) + np.float32(rng.uniform(-0.2, 0.2))
    noise = rng.normal(0, 0.02 * rng.uniform(0, 1), image.shape)
    return (image + noise).astype(np.float32), labels


def rate_at(share: float) -> float:
    """Learning rate when `share` (0-1) of the training time is used: constant, then falling geometrically."""
    late = min(1.0, max(0.0, (share - (1 - DECAY_SHARE)) / DECAY_SHARE))
    return float(RATE * (LAST_RATE / RATE) ** late)


def train(training: Sequence[Entry], fitting: Sequence[Entry], folder: Path, cpu_minutes: float) -> None:
    """Train for `cpu_minutes` of this process's CPU time, then fit both thresholds on the `fitting` images.

    `folder` keeps weights and the time used after every epoch: a training that was ended goes on from there (with fresh
    moments of Adam), and one that is complete returns at once.
    """
    state = read_state(folder)
    if state["complete"]:
        return
    import keras
    from stardist import fill_label_holes  # type: ignore[import-not-found]
    from stardist.models import Config2D, StarDist2D

    class Clock(keras.callbacks.Callback):  # type: ignore[misc]
        """Ends the training when its time is used, sets the rate by it, and writes down where it stands."""

        def __init__(self) -> None:
            super().__init__()
            self.began = time.process_time()
            self.before = float(state["cpu_seconds"])
            self.epochs = int(state["epochs"])
            self.best = float(state["best_loss"])

        @property
        def used(self) -> float:
            return self.before + time.process_time() - self.began

        def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
            self.model.optimizer.learning_rate = rate_at(self.used / (60 * cpu_minutes))

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            if self.used >= 60 * cpu_minutes:
                self.model.stop_training = True

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            loss = float((logs or {})["val_loss"])
            self.epochs, self.best = self.epochs + 1, min(self.best, loss)
            write_state(folder, self.used, self.epochs, self.best, complete=False)
            rate = float(self.model.optimizer.learning_rate)
            print(
                f"epoch {self.epochs}: {self.used / 60:.1f} of {cpu_minutes:g} CPU min, validation loss {loss:.4f} "
                f"(best {self.best:.4f}), rate {rate:.1e}",
                flush=True,
            )

    config = Config2D(
        n_rays=RAYS,
        grid=GRID,
        train_patch_size=(PATCH, PATCH),
        train_batch_size=BATCH,
        train_learning_rate=RATE,
        train_reduce_lr=None,
        train_tensorboard=False,
    )
    model = StarDist2D(config, name=MODEL, basedir=str(folder))
    last = folder / MODEL / config.train_checkpoint_epoch
    if state["epochs"] and last.is_file():
        model.keras_model.load_weights(str(last))
    model.prepare_for_training()
    for callback in model.callbacks:
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and callback.save_best_only:
            callback.best = float(state["best_loss"])
    images = [padded(normalised(entry.plane())) for entry in training]
    labels = [padded(fill_label_holes(entry.labels())) for entry in training]
    watched = (
        [padded(normalised(entry.plane())) for entry in fitting],
        [padded(fill_label_holes(entry.labels())) for entry in fitting],
    )
    clock = Clock()
    # Last, so that the state never claims an epoch whose weights are not yet written.
    model.callbacks.append(clock)
    rng = np.random.default_rng((SEED, clock.epochs))
    # StarDist draws its patches from NumPy's own state.
    np.random.seed(SEED + clock.epochs)  # noqa: NPY002
    model.train(
        images,
        labels,
        validation_data=watched,
        augmenter=lambda image, labels: augmented(image, labels, rng),
        epochs=100_000,
        steps_per_epoch=STEPS_AN_EPOCH,
    )
    used = clock.used
    model.optimize_thresholds(
        [normalised(entry.plane()) for entry in fitting], [entry.labels() for entry in fitting]
    )
    write_state(folder, used, clock.epochs, clock.best, complete=True)
    print(f"complete: {clock.epochs} epochs, {used / 60:.1f} CPU min", flush=True)


def read_state(folder: Path) -> dict[str, float]:
    """Where a training stands: `cpu_seconds`, `epochs` of 100 steps, `best_loss` on the fit images, `complete` (0 or 1)."""
    path = folder / STATE
    if not path.is_file():
        return {"cpu_seconds": 0.0, "epochs": 0, "best_loss": float("inf"), "complete": 0}
    state: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))
    return state


def write_state(folder: Path, cpu_seconds: float, epochs: int, best_loss: float, *, complete: bool) -> None:
    """Write what `read_state` reads, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "cpu_seconds": cpu_seconds,
        "epochs": epochs,
        "best_loss": best_loss,
        "complete": int(complete),
    }
    partial = folder / f"{STATE}.partial"
    partial.write_text(json.dumps(state), encoding="utf-8")
    partial.replace(folder / STATE)


def load(folder: Path) -> Count:
    """The trained model as a counter of one image at its own size. Raises FileNotFoundError before it is trained."""
    if not read_state(folder)["complete"]:
        raise FileNotFoundError(f"{folder / STATE}: no complete training of StarDist there")
    prepare_threads()
    from stardist.models import StarDist2D

    model: StarDist2D = StarDist2D(None, name=MODEL, basedir=str(folder))

    def count(plane: Plane) -> NDArray[np.int32]:
        labels, _ = model.predict_instances(normalised(plane))
        return np.asarray(labels, np.int32)

    return count
