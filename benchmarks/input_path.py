"""What the three ways of delivering pixels sustain, without a network behind them.

python -m benchmarks.input_path --size 363 --images 256
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.cases import SIZES


def measure_input(size: int, images: int, rounds: int = 3) -> dict[str, str]:
    """Images a second of each way, ready to print."""
    from rcmnet_jax.data.batches import HostBatches, StreamBatches
    from rcmnet_jax.data.cache import load_pixels
    from rcmnet_jax.data.dataset import prepare_dataset
    from rcmnet_jax.data.on_demand import OnDemandPixels
    from rcmnet_jax.data.order import BatchOrder
    from rcmnet_jax.data.preprocess import Preprocess

    height, width = SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        source = write_jpegs(Path(folder) / "cells", images, height, width)
        dataset = prepare_dataset("cell_folder", str(source), f"{folder}/data", progress=False)
        preprocess = Preprocess(height=height, width=width)
        start = time.perf_counter()
        pixels = load_pixels(dataset, preprocess, data_dir=f"{folder}/data", progress=False)
        decode = images / (time.perf_counter() - start)
        rows = np.arange(len(dataset))
        order = BatchOrder(np.asarray(dataset.records.label), batch_size=32, seed=0)
        sources = {
            "host: rows of the decoded cache": HostBatches(pixels, rows, order),
            "stream: read and decoded each time, four threads": StreamBatches(
                OnDemandPixels(dataset, preprocess).one, rows, order
            ),
        }
        measured = {"decoded once, all cores": f"{decode:.0f} images/s"}
        for name, batches in sources.items():
            speeds = []
            for epoch in range(rounds):
                steps = order.steps_per_epoch
                start = time.perf_counter()
                for batch in batches.iterate(epoch * steps, (epoch + 1) * steps):
                    assert batch["image"].shape == (32, height, width, 3)
                speeds.append(32 * steps / (time.perf_counter() - start))
            low, high = min(speeds), max(speeds)
            measured[name] = f"{statistics.median(speeds):.0f} images/s ({low:.0f} to {high:.0f})"
        start = time.perf_counter()
        for step in range(1000):
            order.batch(step)
        seconds = (time.perf_counter() - start) / 1000
        measured["device: row numbers of a batch of 32"] = f"{1e6 * seconds:.0f} microseconds"
    return measured


def write_jpegs(root: Path, images: int, height: int, width: int) -> Path:
    """Two class folders of smooth random JPEGs, as large in bytes as photographs of that size."""
    rng = np.random.default_rng(0)
    for number in range(images):
        folder = root / ("first" if number % 2 else "second")
        folder.mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05d}.jpg", quality=90)
    return root


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=363, choices=SIZES)
    parser.add_argument("--images", type=int, default=256)
    args = parser.parse_args()
    for name, value in measure_input(args.size, args.images).items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
