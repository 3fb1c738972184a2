"""The position of a run survives JSON to the last bit."""

import json

from rcmnet_jax.training.saving import Progress


def test_sums_and_means_of_an_epoch():
    progress = Progress()
    progress.add(loss=2.0, correct=3, batch=8)
    progress.add(loss=1.0, correct=5, batch=8)
    assert progress.epoch_means() == {"train_loss": 1.5, "train_accuracy": 0.5}
    assert progress.accounted == 2
    progress.end_epoch()
    assert (progress.epoch, progress.loss_sum, progress.correct, progress.seen) == (1, 0.0, 0, 0)
    assert progress.accounted == 2


def test_a_round_trip_through_json_loses_no_bit():
    progress = Progress(step=7, epoch=1, best={"metric": "loss", "value": 0.1 + 0.2, "step": 5})
    progress.add(loss=0.1, correct=1, batch=3)
    assert Progress.from_dict(json.loads(json.dumps(progress.to_dict()))) == progress
