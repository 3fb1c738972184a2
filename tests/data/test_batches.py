"""Three deliveries of the same batches, and the thread behind one of them."""

import threading
import time

import numpy as np
import pytest

from rcmnet_jax.data.batches import HostBatches, StreamBatches, prefetch, process_share
from rcmnet_jax.data.order import BatchOrder
from rcmnet_jax.errors import DataError

# A data set of 40 images, 30 of them to train on.
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
ROWS = np.random.default_rng(1).permutation(40)[:30]
LABELS = np.arange(30) % 3


def make_order(**options) -> BatchOrder:
    return BatchOrder(LABELS, batch_size=8, seed=5, **{"views": 6, **options})


def device_batches(order: BatchOrder, start: int, stop: int):
    """What the compiled step gathers from the train split that lies on the device."""
    split = PIXELS[ROWS]
    for rows, views in zip(*order.batches(start, stop - start), strict=True):
        yield {"image": split[rows], "label": LABELS[rows], "view": views}


def host_batches(order: BatchOrder, start: int, stop: int, **share):
    return HostBatches(PIXELS, ROWS, order, **share).iterate(start, stop)


def stream_batches(order: BatchOrder, start: int, stop: int, **share):
    return StreamBatches(lambda i: PIXELS[i], ROWS, order, **share).iterate(start, stop)


def assert_same_batches(first, second) -> int:
    count = 0
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys() == {"image", "label", "view"}
        for name in left:
            np.testing.assert_array_equal(left[name], right[name])
        count += 1
    return count


@pytest.mark.parametrize("deliver", [host_batches, stream_batches])
@pytest.mark.parametrize("sampling", ["shuffle", "balanced"])
def test_host_and_stream_deliver_what_the_device_gathers(deliver, sampling):
    order = make_order(sampling=sampling)
    # From the middle of the first epoch (22 steps) to the middle of the second.
    expected = device_batches(make_order(sampling=sampling), 9, 30)
    assert assert_same_batches(deliver(order, 9, 30), expected) == 21


@pytest.mark.parametrize("deliver", [host_batches, stream_batches])
def test_shares_of_two_processes_make_up_the_global_batch(deliver):
    order = make_order()
    shares = [deliver(order, 3, 9, process=p, processes=2) for p in range(2)]
    joined = [
        {name: np.concatenate([left[name], right[name]]) for name in left}
        for left, right in zip(*shares, strict=True)
    ]
    assert_same_batches(joined, device_batches(order, 3, 9))


@pytest.mark.parametrize("deliver", [host_batches, stream_batches])
def test_types_are_those_that_the_step_compiles_for(deliver):
    batch = next(iter(deliver(make_order(), 0, 1)))
    assert {name: array.dtype for name, array in batch.items()} == {
        "image": np.uint8,
        "label": np.int32,
        "view": np.int32,
    }


@pytest.mark.parametrize("deliver", [host_batches, stream_batches])
def test_no_steps_are_no_batches(deliver):
    assert list(deliver(make_order(), 5, 5)) == []


def test_a_stream_that_meets_a_damaged_record_says_so():
    def read(index):
        raise DataError(f"record {index} cannot be read")

    batches = StreamBatches(read, ROWS, make_order())
    with pytest.raises(DataError, match="cannot be read"):
        list(batches.iterate(0, 2))


def test_process_shares_are_contiguous_parts_of_the_last_axis():
    rows = np.arange(12).reshape(2, 6)
    np.testing.assert_array_equal(process_share(rows, 1, 3), [[2, 3], [8, 9]])


def test_prefetch_keeps_the_order_and_ends():
    assert list(prefetch(iter(range(20)), ahead=2)) == list(range(20))


def test_prefetch_raises_an_error_where_the_item_would_have_come():
    def items():
        yield 1
        yield 2
        raise DataError("third")

    ahead = prefetch(items(), ahead=4)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(DataError, match="third"):
        next(ahead)


def test_prefetch_is_never_further_ahead_than_it_may():
    drawn = []

    def items():
        for i in range(20):
            drawn.append(i)
            yield i

    ahead = prefetch(items(), ahead=2)
    next(ahead)
    time.sleep(0.3)
    # One handed out, two in the queue, one in the thread's hand.
    assert len(drawn) <= 4
    ahead.close()


def test_leaving_a_prefetch_early_stops_its_thread():
    before = threading.active_count()
    ahead = prefetch(iter(range(1000)), ahead=2)
    next(ahead)
    assert threading.active_count() == before + 1
    ahead.close()
    assert threading.active_count() == before
