"""Floating-point operations of a network, counted on its plain formulation.

The compiler's own count does not see into the GPU libraries that compute convolutions, and counts
what a quicker formulation does besides.
"""

import math
from collections.abc import Callable, Iterator

import jax
from jax.extend import core as jex

from rcmnet_jax.kernels.backend import plainly


def matrix_flops(function: Callable, *arguments) -> int:
    """Multiplications and additions of all convolutions and matrix products of a function.

    Args:
      function: to be traced, not run; its convolutions are counted as XLA's own.
      arguments: arrays or their shapes.
    """
    with plainly():
        # Traced anew: a trace of the same function may be kept from another formulation.
        jaxpr = jax.make_jaxpr(lambda *a: function(*a))(*arguments)
    return 2 * sum(_products(equation) for equation in _equations(jaxpr.jaxpr))


def _products(equation: jex.JaxprEqn) -> int:
    """Multiplications of one operation."""
    results = equation.outvars[0].aval.shape
    shape = equation.invars[1].aval.shape if len(equation.invars) > 1 else ()
    if equation.primitive.name == "conv_general_dilated":
        features = shape[equation.params["dimension_numbers"].rhs_spec[0]]
        return math.prod(results) * math.prod(shape) // features
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return math.prod(results) * math.prod(left[axis] for axis in contracted)
    return 0


def _equations(jaxpr: jex.Jaxpr) -> Iterator[jex.JaxprEqn]:
    """All of them, of inner functions too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if isinstance(inner, jex.Jaxpr):
                yield from _equations(inner)
