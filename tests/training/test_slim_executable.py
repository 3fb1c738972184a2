"""A compiled program without the bodies of its fusions: smaller, and the same to the last bit."""

import pickle
import pickletools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import serialize_executable

from rcmnet_jax.training import slim_executable
from rcmnet_jax.training.slim_executable import slim
from rcmnet_jax.training.stored_program import OUTSIDE_FRAMES, _slimmed
from tests.training.traced import past_jaxs_cache

LAYERS = 40


@pytest.fixture(autouse=True, scope="module")
def _compiled_here():
    with past_jaxs_cache():
        yield


def computed(x, kernels, table):
    """Products, element-wise fusions, reductions, a loop, and updates in place."""

    def gradient_step(kernels):
        def loss(kernels):
            y = x
            for kernel in kernels:
                y = jnp.tanh(y @ kernel - y.mean(0, keepdims=True)) + jnp.maximum(y, 0.1 * y)
            return jnp.sum(y**2)

        return kernels - 1e-3 * jax.grad(loss)(kernels)

    kernels = gradient_step(kernels)
    table = table.at[3].add(1.0).at[jnp.array([1, 5])].set(kernels[0, :2])
    table = jax.lax.fori_loop(0, 4, lambda i, t: t.at[i].set(jnp.sin(t[i] + t[i + 1])), table)
    return kernels, jax.lax.dynamic_update_slice(table, x[:2], (6, 0))


@pytest.fixture(scope="module")
def arguments():
    generator = np.random.default_rng(7)
    shapes = (16, 32), (LAYERS, 32, 32), (12, 32)
    return tuple(generator.normal(size=shape).astype(np.float32) * 0.2 for shape in shapes)


@pytest.fixture(scope="module")
def written(arguments):
    """The pickle that JAX makes of the compiled program, and the program's trees."""
    program = jax.jit(computed).lower(*arguments).compile()
    return serialize_executable.serialize(program)


def executable_of(pickled):
    return max(
        (value for _, value, _ in pickletools.genops(pickled) if isinstance(value, bytes)), key=len
    )


def results(written, arguments, pickled):
    _, in_tree, out_tree = written
    program = serialize_executable.deserialize_and_load(
        pickled, in_tree, out_tree, execution_devices=jax.devices()[:1]
    )
    return program(*arguments)


def test_it_is_smaller_and_computes_the_same(written, arguments):
    whole = written[0]
    slimmed = _slimmed(whole)
    assert len(slimmed) < 0.7 * len(whole)
    for _ in range(2):
        jax.tree.map(
            np.testing.assert_array_equal,
            results(written, arguments, slimmed),
            results(written, arguments, whole),
        )
    # And nothing is left to do.
    assert _slimmed(slimmed) == slimmed


def test_updates_in_place_keep_their_bodies(written):
    whole = executable_of(written[0])
    slimmed = slim(whole)

    def count(program, opcode):
        # As protobuf writes field 2 of an instruction.
        return program.count(bytes([0x12, len(opcode)]) + opcode)

    assert count(slimmed, b"dynamic-update-slice") == count(whole, b"dynamic-update-slice") > 0
    assert count(whole, b"tanh") >= LAYERS
    assert count(slimmed, b"tanh") == 0


def test_what_another_jaxlib_wrote_is_left_as_it_is(written, monkeypatch):
    monkeypatch.setattr(slim_executable.jaxlib, "__version__", "9.9.0")
    with pytest.raises(ValueError, match=r"jaxlib 9\.9\.0"):
        slim(executable_of(written[0]))
    assert _slimmed(written[0]) == written[0]


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "header alone"])
def test_other_bytes_are_refused(written, kind):
    whole = executable_of(written[0])
    other = {
        "empty": b"",
        "text": b"no program at all, and longer than a header of seventy bytes would be",
        "cut": whole[: len(whole) // 2],
        "header alone": whole[: 2 + whole[0]],
    }[kind]
    with pytest.raises(ValueError):
        slim(other)
    pickled = pickle.dumps(other + bytes(OUTSIDE_FRAMES))
    assert _slimmed(pickled) == pickled


def test_a_small_program_is_left_as_it_is():
    program = jax.jit(lambda x: jnp.tanh(x) + 1).lower(jnp.ones(3)).compile()
    pickled = serialize_executable.serialize(program)[0]
    assert _slimmed(pickled) == pickled
