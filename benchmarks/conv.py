"""Formulations of convolution and max-pooling, by shape: why `kernels/conv.py` chooses as it does.

    python benchmarks/conv.py              # shapes of RCMNet at 64x64, batch 64
    python benchmarks/conv.py --native     # at 363x360, batch 16
    python benchmarks/conv.py --maps       # the last stage's at 64, 96 and 128 pixels, batch 64
    python benchmarks/conv.py --baselines  # AlexNet's 5x5, and dense layers over averages

Prints milliseconds (the best of several calls) for forward, input gradient and kernel gradient.
"""

import argparse
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.kernels import pooled_dense
from rcmnet_jax.kernels.conv import PATCH_CHANNELS, WINOGRAD_KERNELS
from rcmnet_jax.kernels.conv_forms import band_conv2d, patch_conv2d, plain_conv2d, scanned_conv2d
from rcmnet_jax.kernels.max_pool import max_pool
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from rcmnet_jax.kernels.winograd import winograd_conv2d
from rcmnet_jax.runtime import use_huge_pages

# batch, height, width, channels in, channels out, kernel, stride, padding
SMALL = (
    (64, 64, 64, 3, 64, 7, 2, 3),
    (64, 16, 16, 64, 64, 3, 1, 1),
    (64, 16, 16, 64, 128, 3, 2, 1),
    (64, 8, 8, 128, 128, 3, 1, 1),
    (64, 4, 4, 256, 256, 3, 1, 1),
    (64, 4, 4, 256, 512, 3, 2, 1),
    (64, 2, 2, 512, 512, 3, 1, 1),
    (64, 16, 16, 2, 1, 7, 1, 3),
)
NATIVE = (
    (16, 363, 360, 3, 64, 7, 2, 3),
    (16, 91, 90, 64, 64, 3, 1, 1),
    (16, 91, 90, 64, 128, 3, 2, 1),
    (16, 46, 45, 128, 128, 3, 1, 1),
    (16, 23, 23, 256, 256, 3, 1, 1),
    (16, 12, 12, 512, 512, 3, 1, 1),
    (16, 91, 90, 2, 1, 7, 1, 3),
)
MAPS = (
    (64, 2, 2, 512, 512, 3, 1, 1),
    (64, 3, 3, 512, 512, 3, 1, 1),
    (64, 4, 4, 512, 512, 3, 1, 1),
    (64, 4, 4, 256, 512, 3, 2, 1),
    (64, 6, 6, 256, 512, 3, 2, 1),
)
# AlexNet's second convolution at 64 and 128 pixels.
BASELINES = (
    (64, 7, 7, 64, 192, 5, 1, 2),
    (64, 15, 15, 64, 192, 5, 1, 2),
)
# AlexNet and VGG19: batch, side of the map, channels, grid of averages.
DENSE = (
    (64, 1, 256, 6),
    (64, 3, 256, 6),
    (64, 2, 512, 7),
    (64, 4, 512, 7),
    (16, 4, 512, 7),
)
UNITS = 4096


def milliseconds(function, *arguments, repeats: int = 5) -> float:
    """Best wall time of a compiled call, after one that is not counted."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def time_convolution(convolve, x, kernel, gradient) -> str:
    """Forward / input gradient / kernel gradient."""
    forward = milliseconds(convolve, x, kernel)
    input_gradient = milliseconds(
        lambda x, k, g: jax.vjp(lambda x: convolve(x, k), x)[1](g), x, kernel, gradient
    )
    kernel_gradient = milliseconds(
        lambda x, k, g: jax.vjp(lambda k: convolve(x, k), k)[1](g), x, kernel, gradient
    )
    return f"{forward:8.1f} / {input_gradient:.1f} / {kernel_gradient:.1f}"


def time_dense(rng: np.random.Generator) -> None:
    """The first dense layer with its kernel summed before the product, and not."""
    for batch, side, channels, grid in DENSE:
        f = jnp.asarray(rng.standard_normal((batch, side, side, channels)), jnp.float32)
        kernel = jnp.asarray(rng.standard_normal((grid**2 * channels, UNITS)), jnp.float32)
        gradient = jnp.asarray(rng.standard_normal((batch, UNITS)), jnp.float32)
        print(f"{grid}x{grid} averages of {batch}x{side}x{side}x{channels} -> {UNITS}", end="  ")
        for name, first in (("averages first", False), ("kernel first", True)):
            with mock.patch.object(pooled_dense, "sums_kernel", lambda *_, first=first: first):
                figures = time_convolution(
                    lambda f, k, grid=grid: pooled_dense.pooled_product(f, k, grid),
                    f,
                    kernel,
                    gradient,
                )
            print(f"{name} {figures}", end="  ", flush=True)
        print()


def xla_max_pool(x):
    """Max-pooling by XLA's windowed reduction."""
    return nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--native", action="store_true", help="363x360 instead of 64x64")
    sizes.add_argument("--maps", action="store_true", help="maps of a few pixels alone")
    sizes.add_argument("--baselines", action="store_true", help="AlexNet's and VGG19's own")
    args = parser.parse_args()
    use_huge_pages()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}; ms forward / input / kernel")
    rng = np.random.default_rng(0)
    if args.native:
        shapes = NATIVE
    elif args.maps:
        shapes = MAPS
    else:
        shapes = BASELINES if args.baselines else SMALL
    for batch, h, w, c, d, k, stride, padding in shapes:
        x = jnp.asarray(rng.standard_normal((batch, h, w, c)), jnp.float32)
        kernel = jnp.asarray(rng.standard_normal((k, k, c, d)), jnp.float32)
        options = {"stride": stride, "padding": padding}
        gradient = plain_conv2d(x, kernel, **options)
        print(f"{k}x{k}/{stride} {c:3d} -> {d:3d} at {batch}x{h}x{w}", end="  ")
        formulations = [
            ("plain", plain_conv2d),
            ("patches", patch_conv2d),
            ("scan", lambda x, k, *, stride, padding: scanned_conv2d(x, k, stride, padding)),
        ]
        if k in WINOGRAD_KERNELS and (stride, padding) == (1, k // 2):
            formulations.append(("winograd", lambda x, k, **_: winograd_conv2d(x, k)))
        if c < PATCH_CHANNELS:
            formulations.append(
                (
                    "planes",
                    lambda x, k, *, stride, padding: scanned_conv2d(x, k, stride, padding, 1, True),
                )
            )
        if padding and max(h, w) <= 8:
            formulations.append(
                (
                    "pixels",
                    lambda x, k, *, stride, padding: small_map_conv2d(x, k, stride, padding),
                )
            )
        if stride == 1 and c <= 2:
            formulations.append(
                ("band", lambda x, k, *, stride, padding: band_conv2d(x, k, padding=padding))
            )
        for name, convolve in formulations:
            figures = time_convolution(
                lambda x, k, f=convolve, o=options: f(x, k, **o), x, kernel, gradient
            )
            print(f"{name} {figures}", end="  ", flush=True)
        print()
    if args.baselines:
        time_dense(rng)
    if args.maps or args.baselines:
        return
    shape = (16, 182, 180, 64) if args.native else (64, 32, 32, 64)
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    for name, pool in (
        ("windowed", xla_max_pool),
        ("slices", lambda x: max_pool(x, size=3, stride=2, padding=1)),
    ):
        forward = milliseconds(pool, x)
        gradient = milliseconds(lambda x, p=pool: jax.grad(lambda x: p(x).sum())(x), x)
        print(f"max-pool 3x3/2 of {shape}, {name}: {forward:.1f} / {gradient:.1f}")


if __name__ == "__main__":
    main()
