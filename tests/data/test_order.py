"""Which examples make up which batch, by seed and step alone."""

import numpy as np
import pytest

from rcmnet_jax.data.order import ROWS_MULTIPLE, BatchOrder, filled_up
from rcmnet_jax.errors import ConfigError


def epoch_of(order: BatchOrder, epoch: int) -> tuple[np.ndarray, np.ndarray]:
    rows, views = order.batches(epoch * order.steps_per_epoch, order.steps_per_epoch)
    return rows.ravel(), views.ravel()


def test_an_epoch_shows_each_image_once_in_a_new_order():
    order = BatchOrder(np.zeros(24, int), batch_size=6, seed=0)
    first, second = epoch_of(order, 0)[0], epoch_of(order, 1)[0]
    np.testing.assert_array_equal(np.sort(first), np.arange(24))
    np.testing.assert_array_equal(np.sort(second), np.arange(24))
    assert not np.array_equal(first, second)
    assert not np.any(epoch_of(order, 0)[1])


@pytest.mark.parametrize(("rows", "length"), [(1, 64), (63, 64), (64, 64), (65, 128)])
def test_splits_are_filled_up_with_their_last_row(rows, length):
    assert ROWS_MULTIPLE == 64
    filled = filled_up(np.arange(rows) * 3)
    assert len(filled) == length
    np.testing.assert_array_equal(filled[:rows], np.arange(rows) * 3)
    assert np.all(filled[rows:] == (rows - 1) * 3)


def test_the_remainder_that_fills_no_batch_is_another_one_each_epoch():
    order = BatchOrder(np.zeros(10, int), batch_size=4, seed=0)
    assert order.steps_per_epoch == 2
    left_out = [frozenset(range(10)) - set(epoch_of(order, e)[0].tolist()) for e in range(20)]
    assert all(len(rows) == 2 for rows in left_out)
    assert len(set(left_out)) > 5


def test_the_papers_expansion_shows_each_of_400_images_once_in_each_of_six_views():
    # Table 3 of the paper: 400 training originals become 2,400.
    order = BatchOrder(np.repeat([0, 1], 200), batch_size=32, seed=3, views=6)
    assert order.examples_per_epoch == 2400
    assert order.steps_per_epoch * order.batch_size == 2400
    rows, views = epoch_of(order, 2)
    pairs, counts = np.unique(np.stack([rows, views]), axis=1, return_counts=True)
    assert pairs.shape == (2, 2400)
    assert np.all(counts == 1)


def test_every_batch_is_the_same_from_whichever_step_it_is_asked_for():
    labels = np.arange(50) % 3
    for sampling in ("shuffle", "balanced"):
        straight = BatchOrder(labels, batch_size=8, seed=1, views=6, sampling=sampling)
        expected = [straight.batch(step) for step in range(100)]
        for start in (1, 36, 37, 38, 99):
            resumed = BatchOrder(labels, batch_size=8, seed=1, views=6, sampling=sampling)
            rows, views = resumed.batches(start, 100 - start)
            np.testing.assert_array_equal(rows, [rows for rows, _ in expected[start:]])
            np.testing.assert_array_equal(views, [views for _, views in expected[start:]])


def test_another_seed_is_another_order():
    first, second = (BatchOrder(np.zeros(40, int), batch_size=8, seed=s) for s in (0, 1))
    assert not np.array_equal(epoch_of(first, 0)[0], epoch_of(second, 0)[0])


def test_balanced_sampling_gives_every_class_the_same_count_in_every_batch():
    labels = np.repeat([0, 1, 2], [60, 20, 4])
    order = BatchOrder(labels, batch_size=6, seed=0, sampling="balanced")
    assert order.steps_per_epoch == 84 // 6
    for step in range(2 * order.steps_per_epoch):
        assert np.bincount(labels[order.batch(step)[0]]).tolist() == [2, 2, 2]


def test_balanced_sampling_repeats_rare_images_evenly_and_common_ones_not_at_all():
    labels = np.repeat([0, 1], [60, 20])
    rows, _ = epoch_of(BatchOrder(labels, batch_size=8, seed=0, sampling="balanced"), 0)
    counts = np.bincount(rows, minlength=80)
    assert set(counts[:60]) <= {0, 1}
    assert set(counts[60:]) == {2}


def test_rows_and_views_are_int32():
    rows, views = BatchOrder(np.zeros(8, int), batch_size=4, seed=0).batch(0)
    assert rows.dtype == views.dtype == np.int32


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"batch_size": 11}, "smaller train.batch_size"),
        ({"batch_size": 0}, "train.batch_size"),
        ({"batch_size": 2, "sampling": "random"}, "data.sampling"),
    ],
)
def test_impossible_orders_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        BatchOrder(np.zeros(10, int), seed=0, **options)
