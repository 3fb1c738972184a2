"""Makes the bundle of format 1 that is kept for ever, and what it must answer.

    python -m tests.checkpoints.make_format1 FOLDER

It was run once, by the version that introduced the format; run it again only into another folder,
to look. A new format gets a script and files of its own.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from rcmnet_jax.checkpoints import load_model
from rcmnet_jax.export.to_bundle import export_bundle
from rcmnet_jax.prediction import open_classifier
from rcmnet_jax.scoring.run_data import open_run_data
from rcmnet_jax.training.loop import train
from tests.conftest import write_cells
from tests.training.runs import config_of


def main(folder: Path) -> None:
    """Trains a tiny network on coloured discs and exports it in half precision."""
    with tempfile.TemporaryDirectory() as scratch:
        cells = write_cells(Path(scratch, "cells"), per_class=100)
        changes = {"model.width": 4, "model.reduction": 4, "data.data_dir": f"{scratch}/data"}
        config = config_of(cells, "model=rcmnet,epochs=3", **changes)
        train(config, Path(scratch, "run"))
        run = load_model(Path(scratch, "run"))
        data = open_run_data(run)
        export_bundle(run, folder / "format1.rcmnet", data=data, precision="float16")
        pixels = np.asarray(data.pixels[data.rows("test")[:6]])
    # The last two are no cells: black, and a ramp.
    ramp = np.broadcast_to(np.arange(32, dtype=np.uint8)[:, None, None] * 8, (32, 32, 3))
    pixels[4], pixels[5] = 0, ramp
    verdicts = open_classifier(folder / "format1.rcmnet").predict_pixels(pixels)
    np.savez_compressed(
        folder / "format1.npz",
        pixels=pixels,
        probabilities=verdicts.probabilities,
        score=verdicts.score,
        status=verdicts.status,
    )
    print(verdicts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
