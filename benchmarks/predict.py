"""Does prediction keep up with decoding? Images a second of each alone, and of both together.

    python -m benchmarks.predict --model model.rcmnet --images ../shared/data/pbc --limit 2000

Where network and decoding share the cores, as on a CPU, a second of prediction cannot hold more
than ``1 / (1 / decoding + 1 / network)`` images; that bound is printed too. All are measured in
turns, after one warm-up, and the best of the rounds is given: other work on the machine only ever
makes them slower. Files are in the page cache after the first round.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.data.threads import default_workers, ordered_map
from rcmnet_jax.errors import BadImageError
from rcmnet_jax.prediction import Classifier, open_classifier, predict_folder


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    classifier = open_classifier(args.model)
    size = classifier.network.preprocess
    with tempfile.TemporaryDirectory() as scratch:
        folder = linked(args.images, Path(scratch, "images"), args.limit)
        count = len(list(folder.iterdir()))
        classifier.predict_pixels(np.zeros((1, size.height, size.width, 3), np.uint8))
        measured = {"decoding": [], "network": [], "rcmnet predict": []}
        for _ in range(args.rounds):
            measured["decoding"].append(count / decoding(folder, size))
            measured["network"].append(network(classifier))
            measured["rcmnet predict"].append(count / whole(classifier, folder, Path(scratch)))
    device = jax.devices()[0].device_kind
    print(f"{count} images, {default_workers()} cores, {device}, {size.height}x{size.width}")
    best = {name: max(rates) for name, rates in measured.items()}
    bound = 1 / (1 / best["decoding"] + 1 / best["network"])
    for name, rates in measured.items():
        print(f"{name:<16}{best[name]:>9.0f} images/s   ({', '.join(f'{r:.0f}' for r in rates)})")
    print(f"{'shared cores':<16}{bound:>9.0f} images/s   at most")


def linked(images: Path, folder: Path, limit: int) -> Path:
    """The first files below a folder, in one folder."""
    folder.mkdir()
    files = sorted(p for p in images.rglob("*") if p.is_file() and not p.name.startswith("."))
    # Spread over all classes.
    for number, path in enumerate(files[:: max(1, len(files) // limit)][:limit]):
        os.symlink(path.absolute(), folder / f"{number:06d}{path.suffix}")
    return folder


def decoding(folder: Path, size: Preprocess) -> float:
    """Seconds to read and decode all files, in threads."""
    started = time.perf_counter()
    for _ in ordered_map(lambda path: decoded(path, size), folder.iterdir()):
        pass
    return time.perf_counter() - started


def decoded(path: Path, size: Preprocess) -> np.ndarray | None:
    """The pixels; None for a bad file."""
    try:
        return decode_image(path.read_bytes(), size)
    except BadImageError:
        return None


def network(classifier: Classifier, batches: int = 10) -> float:
    """Images a second of the network alone, on pixels that are there."""
    size, batch = classifier.network.preprocess, classifier.batch_size
    pixels = np.random.default_rng(0).integers(
        0, 256, (batch, size.height, size.width, 3), dtype=np.uint8
    )
    started = time.perf_counter()
    for _ in range(batches):
        classifier.predict_pixels(pixels)
    return batches * batch / (time.perf_counter() - started)


def whole(classifier: Classifier, folder: Path, scratch: Path) -> float:
    """Seconds of a prediction as the command makes it."""
    started = time.perf_counter()
    predict_folder(classifier, folder, scratch / "p.csv", restart=True, progress=False)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
