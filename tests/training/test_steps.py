"""One optimizer step, against what it must do to each leaf and another way to compute it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from configs.base import base_config
from rcmnet_jax.data.augment_settings import Augmentation
from rcmnet_jax.errors import UserError
from rcmnet_jax.hosts.mesh import make_mesh
from rcmnet_jax.models import create_model
from rcmnet_jax.training.optimizer import make_optimizer
from rcmnet_jax.training.state import create_train_state
from rcmnet_jax.training.steps import (
    StepConfig,
    StepInputs,
    compile_step,
    cross_entropy,
    example_weights,
    train_step,
    train_steps_on_device,
)
from tests.training.tiny import INPUTS, assert_close, tiny_batch, tiny_state, tiny_step

KEY = jax.random.key(7)


def network_state(name="rcmnet", dtype="float32", learning_rate=0.05):
    model = create_model(
        name, 3, dtype=dtype, width=8, reduction=4, stage_sizes=(1, 1, 1, 1), stem="small"
    )
    return create_train_state(jax.random.key(0), model, optax.sgd(learning_rate), (1, 24, 24, 3))


def network_batch(size=8):
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 256, (size, 24, 24, 3), dtype=np.uint8),
        "label": (np.arange(size) % 3).astype(np.int32),
        "view": np.zeros(size, np.int32),
    }


@pytest.fixture(scope="module")
def first_steps():
    """RCMNet before, after one and after 60 steps on the same eight images; and their losses."""
    traces = []

    def counted(state, batch, key):
        traces.append(1)
        return tiny_step(state, batch, key)

    step = jax.jit(counted, donate_argnums=0)
    state = network_state()
    before = jax.tree.map(np.array, {"params": state.params, "batch_stats": state.batch_stats})
    given = state
    losses, after = [], None
    for _ in range(60):
        state, metrics = step(state, network_batch(), KEY)
        losses.append(float(metrics["loss"]))
        if after is None:
            after = jax.tree.map(
                np.array, {"params": state.params, "batch_stats": state.batch_stats}
            )
    return {
        "before": before,
        "after": after,
        "losses": losses,
        "given": given,
        "state": state,
        "traces": len(traces),
    }


def test_a_step_moves_every_parameter_and_every_running_statistic(first_steps):
    before, after = (
        traverse_util.flatten_dict(first_steps[name], sep="/") for name in ("before", "after")
    )
    still = {path for path in before if np.array_equal(before[path], after[path])}
    # The last scale of the BoT block starts at zero, so for one step nothing behind it is trained.
    assert all("bot" in path for path in still), sorted(still)
    state = first_steps["state"]
    final = {"params": state.params, "batch_stats": state.batch_stats}
    final = traverse_util.flatten_dict(final, sep="/")
    assert [path for path in before if np.array_equal(before[path], final[path])] == []


def test_a_few_steps_overfit_eight_images(first_steps):
    losses = first_steps["losses"]
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.1 < losses[0]


def test_the_step_is_traced_once(first_steps):
    assert first_steps["traces"] == 1


def test_the_given_state_is_donated_and_the_step_counted(first_steps):
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first_steps["given"].params))
    assert int(first_steps["state"].step) == 60


def test_bfloat16_compute_keeps_parameters_statistics_and_logits_in_float32():
    state = network_state("resnet18", dtype="bfloat16")
    step = partial(train_step, config=StepConfig())
    new, metrics = jax.eval_shape(step, state, network_batch(), KEY)
    leaves = jax.tree.leaves((new.params, new.batch_stats, new.opt_state, metrics["loss"]))
    assert {leaf.dtype for leaf in leaves} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    assert "bf16" in str(jax.make_jaxpr(step)(state, network_batch(), KEY))


def test_sgd_without_batch_norm_does_what_the_formula_says():
    state, batch = tiny_state(), tiny_batch()
    x = (batch["image"] / 255 - 0.5) / 0.25

    def loss_fn(params):
        logits = state.apply_fn({"params": params}, jnp.asarray(x, jnp.float32), train=True)
        return -jax.nn.log_softmax(logits)[np.arange(12), batch["label"]].mean()

    loss, gradients = jax.value_and_grad(loss_fn)(state.params)
    new, metrics = tiny_step(state, batch, KEY)
    expected = jax.tree.map(lambda p, g: p - 0.1 * g, state.params, gradients)
    assert_close(new.params, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(float(metrics["loss"]), float(loss), rtol=1e-5)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradients)))
    np.testing.assert_allclose(float(metrics["gradient_norm"]), norm, rtol=1e-5)
    predicted = state.apply_fn({"params": state.params}, jnp.asarray(x, jnp.float32), train=False)
    assert int(metrics["correct"]) == (np.asarray(predicted).argmax(-1) == batch["label"]).sum()


@pytest.mark.parametrize("class_weights", [None, (0.5, 1.0, 4.0)])
@pytest.mark.parametrize("parts", [2, 3])
def test_micro_batches_add_up_to_the_whole_batch(parts, class_weights):
    batch, inputs = tiny_batch(), INPUTS.replace(class_weights=class_weights)
    whole, part = (tiny_step(tiny_state(), batch, KEY, inputs, accumulate=n) for n in (1, parts))
    assert_close(part[0].params, whole[0].params, rtol=1e-5, atol=1e-7)
    assert_close(part[1], whole[1], rtol=1e-5)


def test_averaged_weights_follow_the_parameters_by_one_minus_the_decay():
    state = tiny_state(ema=True)
    assert_close(state.ema_params, state.params)
    expected = state.params
    for step in range(3):
        state, _ = tiny_step(state, tiny_batch(seed=step), KEY, ema=0.9)
        expected = jax.tree.map(lambda e, p: 0.9 * e + 0.1 * p, expected, state.params)
    assert_close(state.ema_params, expected, rtol=1e-5)
    assert state.eval_variables["params"] is state.ema_params


def test_several_steps_in_one_call_are_the_steps_one_by_one():
    split = jax.tree.map(jnp.asarray, tiny_batch(30))
    rows = np.random.default_rng(1).permutation(30)[:24].reshape(3, 8).astype(np.int32)
    rows, views = jnp.asarray(rows), jnp.zeros_like(rows)
    # Random augmentation, so that the key of each step is seen to be the same as well.
    augmentation = Augmentation("dihedral", 0.1, 0.1)
    config = StepConfig(augmentation=augmentation)
    count = np.asarray(3, np.int32)
    together, metrics = train_steps_on_device(
        tiny_state(), split, rows, views, count, KEY, INPUTS, config=config
    )
    single, losses = tiny_state(), []
    for index, view in zip(rows, views, strict=True):
        batch = {"image": split["image"][index], "label": split["label"][index], "view": view}
        single, one = tiny_step(single, batch, KEY, augmentation=augmentation)
        losses.append(float(one["loss"]))
    assert_close(together.params, single.params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(np.asarray(metrics["loss"]), losses, rtol=1e-5)
    assert int(together.step) == 3


@pytest.mark.parametrize("steps", [1, 3])
def test_each_of_several_steps_takes_the_rate_that_it_is_given(steps):
    optim = base_config().optim
    split = jax.tree.map(jnp.asarray, tiny_batch(30))
    rows = jnp.arange(8 * steps).reshape(steps, 8)
    rates = jnp.asarray([0.1, 0.3, 0.02][:steps])
    together, _ = train_steps_on_device(
        tiny_state(make_optimizer(optim, lambda _: 7.0)),
        split,
        rows,
        jnp.zeros_like(rows),
        np.asarray(steps, np.int32),
        KEY,
        INPUTS.replace(learning_rate=rates),
        config=StepConfig(),
    )
    scheduled = tiny_state(make_optimizer(optim, lambda step: rates[step]))
    for index in rows:
        batch = {"image": split["image"][index], "label": split["label"][index]}
        batch["view"] = np.zeros(8, np.int32)
        scheduled, _ = tiny_step(scheduled, batch, KEY)
    assert_close(together.params, scheduled.params, rtol=1e-5, atol=1e-7)
    assert int(together.step) == steps


def test_one_step_on_device_reports_like_several():
    split, rows = tiny_batch(30), np.arange(8, dtype=np.int32)[None]
    one = np.asarray(1, np.int32)
    _, metrics = train_steps_on_device(
        tiny_state(), split, rows, np.zeros_like(rows), one, KEY, INPUTS, config=StepConfig()
    )
    assert {value.shape for value in metrics.values()} == {(1,)}


def test_a_call_with_room_for_more_takes_only_as_many_steps_as_asked():
    split = jax.tree.map(jnp.asarray, tiny_batch(30))
    rows = np.arange(32, dtype=np.int32).reshape(4, 8) % 30
    views, rates = np.zeros_like(rows), jnp.full(4, 0.1)
    step = compile_step(StepConfig(), make_mesh(), on_device=True)
    inputs = INPUTS.replace(learning_rate=rates)
    state = tiny_state(make_optimizer(base_config().optim, lambda _: 7.0))
    expected = state
    for index in rows[:2]:
        batch = {name: column[index] for name, column in split.items()}
        expected, _ = train_step(
            expected, batch, KEY, INPUTS.replace(learning_rate=rates[0]), config=StepConfig()
        )
    state, metrics = step(state, split, rows, views, np.asarray(2, np.int32), KEY, inputs)
    assert int(state.step) == 2
    assert_close(state.params, expected.params, rtol=1e-5, atol=1e-7)
    assert (np.asarray(metrics["loss"]) > 0).tolist() == [True, True, False, False]


def test_images_that_are_not_uint8_are_refused_with_the_remedy():
    batch = tiny_batch()
    batch["image"] = batch["image"].astype(np.float32) / 255
    with pytest.raises(UserError, match="float32, not uint8"):
        tiny_step(tiny_state(), batch, KEY)


def test_without_statistics_images_stay_between_zero_and_one():
    batch = tiny_batch()
    plain, _ = train_step(tiny_state(), batch, KEY)
    identity = StepInputs(mean=np.zeros(3, np.float32), std=np.ones(3, np.float32))
    standardised, metrics = tiny_step(tiny_state(), batch, KEY, identity)
    assert_close(plain.params, standardised.params, rtol=1e-6)
    np.testing.assert_allclose(float(metrics["accuracy"]), int(metrics["correct"]) / 12)


def test_cross_entropy_against_numbers_by_hand():
    logits = jnp.log(jnp.asarray([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    labels = jnp.asarray([0, 1])
    plain = -(np.log(0.7) + np.log(0.1)) / 2
    np.testing.assert_allclose(float(cross_entropy(logits, labels)), plain, rtol=1e-6)
    # Smoothing by 0.3 moves 0.1 to every class: the true one keeps 0.8.
    first = -(0.8 * np.log(0.7) + 0.1 * np.log(0.2) + 0.1 * np.log(0.1))
    second = -(0.1 * np.log(0.1) + 0.8 * np.log(0.1) + 0.1 * np.log(0.8))
    smooth = float(cross_entropy(logits, labels, label_smoothing=0.3))
    np.testing.assert_allclose(smooth, (first + second) / 2, rtol=1e-6)
    # Weights of 1 and 3: the weighted mean, as PyTorch's.
    weights = example_weights(labels, (1.0, 3.0, 9.0))
    weighted = float(cross_entropy(logits, labels, weight_B=weights))
    np.testing.assert_allclose(weighted, -(np.log(0.7) + 3 * np.log(0.1)) / 4, rtol=1e-6)
