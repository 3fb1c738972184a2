"""What one call of the compiled step is given."""

import dataclasses

import numpy as np
import pytest

from rcmnet_jax.training.experiment import build_experiment
from rcmnet_jax.training.feed import Feed
from tests.training.runs import config_of


@pytest.fixture(scope="module")
def experiment(cells):
    return build_experiment(config_of(cells))


def with_changes(experiment, **changes):
    config = experiment.config.copy_and_resolve_references()
    config.update_from_flattened_dict(changes)
    return dataclasses.replace(experiment, config=config)


def lengths(feed, start, stop):
    return [count for count, _ in feed.dispatches(start, stop)]


@pytest.mark.parametrize(
    ("chunk", "every", "expected"),
    [(0, 0, [1, 1, 1, 1, 1]), (3, 0, [3, 2]), (2, 3, [2, 1, 1, 1]), (10, 0, [5])],
)
def test_dispatches_end_at_chunks_checkpoints_and_the_epoch(experiment, chunk, every, expected):
    changed = with_changes(
        experiment, **{"train.steps_per_dispatch": chunk, "checkpoint.every_steps": every}
    )
    assert lengths(Feed(changed), 0, 5) == expected


@pytest.mark.parametrize(("chunk", "every"), [(3, 0), (2, 3), (4, 0)])
def test_a_resumed_epoch_makes_the_calls_that_were_left(experiment, chunk, every):
    changed = with_changes(
        experiment, **{"train.steps_per_dispatch": chunk, "checkpoint.every_steps": every}
    )
    feed = Feed(changed)
    for epoch in (0, 1):
        start, stop = 5 * epoch, 5 * epoch + 5
        calls = lengths(feed, start, stop)
        for done in range(1, len(calls)):
            assert lengths(feed, start + sum(calls[:done]), stop) == calls[done:]


def test_rows_of_a_dispatch_are_those_of_the_order(experiment):
    feed = Feed(with_changes(experiment, **{"train.steps_per_dispatch": 3}))
    (_, first), (_, second) = feed.dispatches(5, 10)
    # Three steps, then two, with room for a third: both calls run one program.
    assert [int(first[3]), int(second[3])] == [3, 2]
    assert first[1].shape == second[1].shape == (3, 8)
    rows = np.concatenate([np.asarray(first[1]), np.asarray(second[1])[:2]])
    np.testing.assert_array_equal(rows, experiment.order.batches(5, 5)[0])
    images, labels = np.asarray(first[0]["image"]), np.asarray(first[0]["label"])
    train = experiment.pixels[experiment.split.indices("train")]
    np.testing.assert_array_equal(images[: len(train)], train)
    np.testing.assert_array_equal(labels[: len(train)], experiment.order.labels)
    # Filled up with its last image, which then is in no batch again.
    assert len(images) == len(labels) == 64
    np.testing.assert_array_equal(images[len(train) :], np.broadcast_to(train[-1], (19, 32, 32, 3)))
    assert rows.max() < len(train) == 45


def test_host_gives_the_pixels_that_the_device_would_gather(experiment):
    (_, (split, rows, views, _)), *_ = Feed(experiment).dispatches(0, 1)
    (_, (batch,)), *_ = Feed(with_changes(experiment, **{"data.cache": "host"})).dispatches(0, 1)
    index = np.asarray(rows)[0]
    np.testing.assert_array_equal(np.asarray(split["image"])[index], np.asarray(batch["image"]))
    np.testing.assert_array_equal(np.asarray(split["label"])[index], np.asarray(batch["label"]))
    np.testing.assert_array_equal(np.asarray(views)[0], np.asarray(batch["view"]))
