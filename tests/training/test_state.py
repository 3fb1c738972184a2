"""What a fresh state holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rcmnet_jax.training.state import create_train_state, initializer
from tests.training.tiny import TinyNet, assert_close, tiny_state


def test_the_step_is_an_array_from_the_start():
    state = tiny_state()
    assert isinstance(state.step, jax.Array)
    assert state.step.dtype == jnp.int32
    assert int(state.step) == 0


def test_the_same_key_gives_the_same_weights():
    assert_close(tiny_state().params, tiny_state().params)


def test_weights_are_those_that_the_network_draws():
    variables = TinyNet().init(jax.random.key(0), jnp.zeros((1, 6, 6, 3)), train=False)
    assert_close(tiny_state().params, variables["params"], rtol=1e-6)


def test_averaged_weights_exist_only_on_request_and_never_share_buffers():
    assert tiny_state().ema_params is None
    state = tiny_state(ema=True)
    # A shared buffer would be donated twice.
    for mine, other in zip(
        jax.tree.leaves(state.ema_params), jax.tree.leaves(state.params), strict=True
    ):
        for one, two in zip(mine.addressable_shards, other.addressable_shards, strict=True):
            assert one.data.unsafe_buffer_pointer() != two.data.unsafe_buffer_pointer()


def test_evaluation_uses_batch_stats_that_are_empty_without_batch_norm():
    variables = tiny_state().eval_variables
    assert variables["batch_stats"] == {}
    assert np.isfinite(np.asarray(variables["params"]["head"]["kernel"])).all()


def test_shapes_and_values_take_one_trace_of_the_network():
    traces = 0

    class CountedNet(TinyNet):
        def __call__(self, x, *, train):
            nonlocal traces
            traces += 1
            return super().__call__(x, train=train)

    model, shape = CountedNet(), (1, 6, 6, 3)
    shapes = initializer(model, shape).eval_shape(jax.random.key(0))
    state = create_train_state(jax.random.key(0), model, optax.sgd(0.1), shape)
    assert jax.tree.map(jnp.shape, state.params) == jax.tree.map(jnp.shape, shapes["params"])
    assert traces == 1
