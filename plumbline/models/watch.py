"""Training watched from epoch to epoch: how far it is, and whether it diverged or never began."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from plumbline.common.progress import Progress
from plumbline.models.batches import Batches
from plumbline.models.records import Status

if TYPE_CHECKING:
    import keras

LOOKED_AT = (3, 6, 12, 24, 48, 96)
"""Epochs after which a network whose loss has not moved is looked at: does it answer the same to everything?"""
ANSWERS = "answers"
"""The metric that is the loss of the answers alone, where more than answers is learnt."""
NOT_MOVED = 0.98
NOTHING_TO_LEARN = 1e-3
SAME = 1e-4


class Watch:
    """Watches one training of `network` over `epochs` epochs; `status` says how it ended.

    A network whose relus are all dead (their input below zero for every picture) has no gradient and stays as it is:
    its loss is that of chance, its answer the same for every picture. Training is stopped where both are so.
    """

    def __init__(self, name: str, epochs: int, chance_loss: float, train: Batches, network: keras.Model) -> None:
        self.epochs, self.chance_loss, self.train, self.network = epochs, chance_loss, train, network
        self.status: Status = "trained"
        self.progress = Progress(f"train {name}".strip(), epochs, "epoch")

    def callback(self) -> keras.callbacks.Callback:
        """What Keras calls; the last of its callbacks, so that the best weights are back when training ends."""
        import keras

        watch = self

        class Watching(keras.callbacks.Callback):  # type: ignore[misc]
            def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
                watch.after_epoch(epoch + 1, logs or {}, self.model)

            def on_train_end(self, logs: dict[str, float] | None = None) -> None:
                watch.progress.close()

        return Watching()

    def after_epoch(self, epoch: int, logs: dict[str, float], model: keras.Model) -> None:
        """Look at what epoch number `epoch` (1, 2, ...) brought, end the training where it leads nowhere."""
        loss, val_loss = logs.get("loss", math.nan), logs.get("val_loss", 0.0)
        self.progress.step(f"validation loss {val_loss:.3f}, accuracy {logs.get('val_accuracy', math.nan):.3f}")
        last = epoch == self.epochs or model.stop_training
        if not (math.isfinite(loss) and math.isfinite(val_loss)):
            self.status, model.stop_training = "diverged", True
        elif (last or epoch in LOOKED_AT) and self._has_not_moved(logs.get(ANSWERS, loss)) and self._constant():
            self.status, model.stop_training = "constant", True

    def _has_not_moved(self, loss: float) -> bool:
        return self.chance_loss > NOTHING_TO_LEARN and loss >= NOT_MOVED * self.chance_loss

    def _constant(self) -> bool:
        """Whether the network says the same of all pictures of a batch."""
        # Not the first of a dataset: an iterator that is dropped half-way has threads that may be waiting for this one.
        features = self.train.some()
        output = np.asarray(self.network(features, training=False))
        return bool(len(output) > 1 and np.ptp(output, axis=0).max() < SAME)
