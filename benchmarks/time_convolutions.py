"""Times every form of convolution and max-pooling at the networks' shapes (see kernels/conv.py).

    python benchmarks/time_convolutions.py              # RCMNet at 64x64, batch 64
    python benchmarks/time_convolutions.py --native     # at 363x360, batch 16
    python benchmarks/time_convolutions.py --maps       # small maps, batch 64

Prints milliseconds, the best of several calls, for forward / input gradient / kernel gradient.
Forms that are close here must be compared in whole networks, in processes of their own.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.kernels.conv_forms import band_conv2d, patch_conv2d, plain_conv2d, scanned_conv2d
from rcmnet_jax.kernels.max_pool import max_pool, plain_max_pool
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from rcmnet_jax.kernels.winograd import winograd_conv2d
from rcmnet_jax.runtime import use_huge_pages

# Batch, height, width, channels in, channels out, kernel, stride, padding.
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


def milliseconds(function: Callable, *arguments, repeats: int = 5) -> float:
    """Best wall time of a compiled call, after one that is not counted."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        times.append(time.perf_counter() - start)
    return 1e3 * min(times)


def forms_of(shape: tuple[int, ...]) -> Iterator[tuple[str, Callable]]:
    """Every form that can compute a convolution, as a function of input and kernel."""
    _, height, width, channels, _, size, stride, padding = shape
    yield "plain", partial(plain_conv2d, stride=stride, padding=padding)
    yield "patches", partial(patch_conv2d, stride=stride, padding=padding)
    yield "scan", lambda x, k: scanned_conv2d(x, k, stride, padding)
    if (size, stride, padding) == (3, 1, 1):
        yield "winograd", winograd_conv2d
    if padding and max(height, width) <= 8:
        yield "pixels", lambda x, k: small_map_conv2d(x, k, stride, padding)
    if stride == 1 and channels <= 2:
        yield "band", partial(band_conv2d, padding=padding)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--native", action="store_true", help="363x360 instead of 64x64")
    sizes.add_argument("--maps", action="store_true", help="maps of a few pixels only")
    args = parser.parse_args()
    use_huge_pages()
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}; ms forward / input / kernel")
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> jax.Array:
        return jnp.asarray(rng.standard_normal(shape), jnp.float32)

    for shape in NATIVE if args.native else MAPS if args.maps else SMALL:
        batch, height, width, channels, features, size, stride, padding = shape
        x, kernel = draw(batch, height, width, channels), draw(size, size, channels, features)
        g = plain_conv2d(x, kernel, stride=stride, padding=padding)
        print(f"{size}x{size}/{stride} {channels} -> {features} at {batch}x{height}x{width}")
        for name, convolve in forms_of(shape):
            times = (
                milliseconds(convolve, x, kernel),
                milliseconds(lambda x, k, g, f=convolve: jax.vjp(f, x, k)[1](g)[0], x, kernel, g),
                milliseconds(lambda x, k, g, f=convolve: jax.vjp(f, x, k)[1](g)[1], x, kernel, g),
            )
            print(f"  {name:9}" + " / ".join(f"{t:.1f}" for t in times), flush=True)
    if args.maps:
        return
    x = draw(16, 182, 180, 64) if args.native else draw(64, 32, 32, 64)
    print(f"max-pool 3x3/2 of {x.shape}: forward / gradient")
    for name, pool in (("windowed", plain_max_pool), ("slices", max_pool)):
        pooled = partial(pool, size=3, stride=2, padding=1)
        gradient = milliseconds(lambda x, p=pooled: jax.grad(lambda x: p(x).sum())(x), x)
        print(f"  {name:9}{milliseconds(pooled, x):.1f} / {gradient:.1f}", flush=True)


if __name__ == "__main__":
    main()
