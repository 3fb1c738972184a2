"""One pass over any number of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.data.augment import DIHEDRAL
from rcmnet_jax.errors import DataError
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, require_divisible
from rcmnet_jax.inference import (
    BatchedPass,
    logits,
    logits_features_colours,
    logits_of_features,
    mean_features,
    predict_step,
    softmax,
)
from tests.training.tiny import TinyNet, tiny_batch, tiny_state

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 6, 6, 3), dtype=np.uint8)
NORM = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


def pass_of(function, batch_size: int = 4) -> BatchedPass:
    return BatchedPass(function, TinyNet(), **NORM, batch_size=batch_size)


@pytest.fixture(scope="module")
def variables():
    return tiny_state().eval_variables


def expected_logits(variables, pixels) -> np.ndarray:
    x = (pixels / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    return np.asarray(TinyNet().apply(variables, x, train=False))


def test_no_image_is_dropped_and_the_batch_size_changes_nothing(variables):
    rows = np.random.default_rng(1).permutation(23)
    expected = expected_logits(variables, PIXELS[rows])
    assert expected.shape == (23, 3)
    for size in (1, 4, 7, 23, 64):
        outputs = pass_of(logits, size)(variables, PIXELS, rows)
        np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_any_number_of_images_takes_one_compilation(variables):
    traced = []

    def counted(model, variables, x, batch):
        traced.append(x.shape)
        return logits(model, variables, x, batch)

    one = pass_of(counted, 8)
    for count in (1, 8, 9, 23):
        assert len(one(variables, PIXELS, np.arange(count))) == count
    assert traced == [(8, 6, 6, 3)]


def test_passes_of_equal_networks_share_their_program(variables):
    traced = []

    def counted(model, variables, x, batch):
        traced.append(x.shape)
        return logits(model, variables, x, batch)

    first = pass_of(counted)(variables, PIXELS)
    other = BatchedPass(counted, TinyNet(), mean=(0.4,) * 3, std=(0.2,) * 3, batch_size=4)
    assert not np.allclose(other(variables, PIXELS), first)
    assert len(traced) == 1


def test_no_images_give_empty_outputs_of_the_right_shape(variables):
    rows = np.arange(0)
    assert pass_of(logits)(variables, PIXELS, rows).shape == (0, 3)
    empty = pass_of(logits_features_colours)(variables, PIXELS, rows, views=(0, 3))
    assert [part.shape for part in empty] == [(2, 0, 3), (2, 0, 4), (2, 0, 6), (2, 0)]


def test_views_turn_the_image_and_keep_its_place(variables):
    pixel_moves = {1: lambda x: np.rot90(x, 1, (1, 2)), 4: lambda x: x[:, ::-1]}
    shown = pass_of(logits)(variables, PIXELS, views=range(len(DIHEDRAL)))
    assert shown.shape == (8, 23, 3)
    np.testing.assert_array_equal(shown[0], pass_of(logits)(variables, PIXELS))
    for view, moved in pixel_moves.items():
        expected = expected_logits(variables, moved(PIXELS))
        np.testing.assert_allclose(shown[view], expected, rtol=1e-5, atol=1e-6)


def test_what_is_given_per_image_stays_with_its_image(variables):
    def echo(model, variables, x, batch):
        del model, variables
        return {"sum": batch["image"].astype(jnp.float32).sum((1, 2, 3)), "id": batch["id"]}

    rows = np.arange(22, -1, -1)
    outputs = pass_of(echo)(variables, PIXELS, rows, per_image={"id": np.int32(100 + rows)})
    np.testing.assert_array_equal(outputs["id"], 100 + rows)
    np.testing.assert_array_equal(outputs["sum"], PIXELS[rows].astype(np.float32).sum((1, 2, 3)))


def test_a_stream_gives_what_a_call_gives(variables):
    one = pass_of(logits_features_colours)
    parts = list(one.stream(variables, (PIXELS[s : s + 4] for s in range(0, 23, 4))))
    assert [len(part.logits) for part in parts] == [4, 4, 4, 4, 4, 3]
    whole = one(variables, PIXELS)
    for streamed, called in zip(zip(*parts, strict=True), whole, strict=True):
        np.testing.assert_array_equal(np.concatenate(streamed), called)


def test_features_and_colours_are_those_of_the_image(variables):
    outputs = pass_of(logits_features_colours)(variables, PIXELS)
    np.testing.assert_allclose(outputs.logits, expected_logits(variables, PIXELS), atol=1e-6)
    rgb = PIXELS / 255
    colours = np.concatenate([rgb.mean((1, 2)), rgb.std((1, 2))], axis=1)
    np.testing.assert_allclose(outputs.colours, colours, atol=1e-6)
    features = pass_of(mean_features)(variables, PIXELS)
    np.testing.assert_array_equal(outputs.features, features)
    x = (PIXELS / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    maps = TinyNet().apply(variables, x, train=False, method="features")
    np.testing.assert_allclose(features, np.asarray(maps).mean((1, 2)), rtol=1e-5, atol=1e-6)
    # The classifier alone, on the maps as they are.
    head = BatchedPass(logits_of_features, TinyNet(), mean=None, std=None, batch_size=4)
    np.testing.assert_allclose(head(variables, np.asarray(maps)), outputs.logits, atol=1e-6)


@pytest.mark.two_devices
def test_variables_on_one_device_serve_a_mesh_of_several(variables):
    assert jax.device_count() > 1
    here = jax.device_put(variables, jax.devices()[1])
    there = pass_of(logits)(here, PIXELS, np.arange(5))
    np.testing.assert_array_equal(there, pass_of(logits)(variables, PIXELS, np.arange(5)))


def test_an_image_that_cannot_be_read_is_raised(variables):
    class Broken:
        def __getitem__(self, rows):
            raise DataError("image 7 is damaged")

    with pytest.raises(DataError, match="image 7"):
        pass_of(logits)(variables, Broken(), np.arange(5))


def test_the_prediction_step_standardises():
    state, batch = tiny_state(), tiny_batch()
    outputs = predict_step(state.apply_fn, {"params": state.params}, batch["image"], **NORM)
    expected = expected_logits({"params": state.params}, batch["image"])
    np.testing.assert_allclose(np.asarray(outputs), expected, rtol=1e-4, atol=1e-6)


def test_softmax_sums_to_one_and_takes_large_logits():
    probabilities = softmax(np.float32([[1000, 999, -1000], [0, 0, 0]]))
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-15)
    np.testing.assert_allclose(probabilities[1], 1 / 3)


@pytest.mark.two_devices
def test_a_batch_is_split_evenly_over_the_devices():
    batch = put_batch(np.arange(8), make_mesh())
    assert [shard.data.shape for shard in batch.addressable_shards] == [(4,), (4,)]
    require_divisible(8, make_mesh(), "train.batch_size")
