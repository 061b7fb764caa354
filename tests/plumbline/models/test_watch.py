"""What ends a training that leads nowhere, and what does not."""

import math

import keras
import numpy as np
import pytest

from plumbline.models.batches import Batches
from plumbline.models.watch import Watch

CHANCE = math.log(2)
PICTURES = np.random.default_rng(0).random((8, 1, 4)).astype(np.float32)


def network(dead):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    if dead:
        model.set_weights([np.zeros((4, 1)), np.zeros(1)])
    model.stop_training = False
    return model


def after(epoch, dead=False, chance=CHANCE, epochs=20, stopped=False, **logs):
    model = network(dead)
    watch = Watch("x", epochs, chance, Batches(PICTURES, np.arange(8), np.zeros(8), 8), model)
    model.stop_training = stopped
    watch.after_epoch(epoch, {"loss": 0.69, "val_loss": 0.69, "val_accuracy": 0.5, **logs}, model)
    return watch.status, model.stop_training


def test_the_loss_of_the_answers_counts_where_more_is_learnt():
    assert after(3, dead=True, loss=9.0, answers=0.69) == ("constant", True)
    assert after(3, dead=True, loss=9.0, answers=0.1) == ("trained", False)


def test_the_same_answer_at_the_loss_of_chance_ends_it():
    assert after(3, dead=True) == ("constant", True)


@pytest.mark.parametrize(
    "case",
    [
        {"epoch": 3},  # its answers differ
        {"epoch": 3, "dead": True, "loss": 0.4},  # it learns, and may say the same for a while
        {"epoch": 2, "dead": True},  # not looked at yet
        {"epoch": 3, "dead": True, "chance": 0.0, "loss": 0.0},  # one class: there is nothing to learn
    ],
)
def test_what_may_still_learn_goes_on(case):
    assert after(**case) == ("trained", False)


def test_the_last_epoch_is_looked_at_whichever_it_is():
    assert after(5, dead=True, epochs=5)[0] == "constant"
    assert after(2, dead=True, stopped=True)[0] == "constant"


@pytest.mark.parametrize("logs", [{"loss": math.nan}, {"val_loss": math.inf}])
def test_a_loss_that_is_no_number_ends_it_at_once(logs):
    assert after(1, **logs) == ("diverged", True)
