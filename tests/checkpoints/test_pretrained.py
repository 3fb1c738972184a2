"""The network that is shipped opens, says what it is, and is as good as its card says."""

import os
from pathlib import Path

import numpy as np
import pytest

from rcmnet_jax.checkpoints import load_model

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "checkpoints" / "pretrained" / "pbc_rcmnet_64.rcmnet"
SHARED = Path(os.environ.get("RCMNET_SHARED", ROOT.parent / "shared"))
# Of the file's half-precision weights, on the run's own test part.
RIGHT, IMAGES = 1880, 1944


@pytest.fixture(scope="module")
def network():
    return load_model(BUNDLE)


def test_it_is_small_and_opens(network):
    assert BUNDLE.stat().st_size <= 25_000_000
    assert len(network.class_names) == 8
    assert (network.preprocess.height, network.preprocess.width) == (64, 64)
    x = np.zeros((1, 64, 64, 3), np.float32)
    logits = network.model.apply(network.variables, x, train=False)
    assert np.isfinite(np.asarray(logits)).all()


def test_it_names_its_images_and_their_licence(network):
    record = str(network.meta["bundle"])
    assert "CC BY 4.0" in record
    assert "Acevedo" in record
    assert "snkd93bnjr" in record


@pytest.mark.slow
def test_it_scores_what_its_card_says(tmp_path, network):
    from rcmnet_jax.scoring.run_data import open_run_data
    from rcmnet_jax.scoring.score import score_part

    source = SHARED / "data" / "pbc"
    if not source.is_dir():
        pytest.skip(f"the real images are not at {source}")
    evaluation = score_part(open_run_data(network, source=str(source)), "test").write(
        tmp_path, network.class_names
    )
    assert evaluation.n == IMAGES
    # Another processor may round an image or two to the other side.
    assert abs(evaluation.accuracy.k - RIGHT) <= 2
