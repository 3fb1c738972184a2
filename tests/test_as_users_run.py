"""What users run, as they run it: one device, all of the compiler's optimisation, full networks.

The rest of the suite compiles with less optimisation (tests/conftest.py). Each test here starts a
process without that setting.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.interop.rule_weights import parity_folder

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "checkpoints" / "pretrained" / "pbc_rcmnet_64.rcmnet"

PARITY = """
from functools import partial
import jax
from rcmnet_jax.interop.torch import from_torch_state_dict
from rcmnet_jax.models import create_model
from tests.interop import test_parity
from tests.interop.rule_weights import expected, rule_images, rule_state_dict

assert jax.device_count() == 1
figures = expected("rcmnet")
model = create_model("rcmnet", 8)
variables = from_torch_state_dict("rcmnet", rule_state_dict("rcmnet"), num_classes=8)
images = rule_images(2, 363, 360)

logits = jax.jit(partial(model.apply, train=False))(variables, images)
test_parity.assert_parity(logits, figures["logits"], 1e-4)
test_parity.test_training_step_of_resnet18_c()
print("parity holds")
"""

GRAD_CAM = """
import numpy as np
from rcmnet_jax.checkpoints import load_model
from rcmnet_jax.explain import grad_cam

network = load_model(sys.argv[1])
x = np.random.default_rng(0).uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
signed, positive = (
    np.asarray(grad_cam(network.model, network.variables, x, np.array([0, 5]), relu=relu))
    for relu in (False, True)
)
assert signed.shape[0] == 2 and np.isfinite(signed).all()
np.testing.assert_allclose(positive, np.maximum(signed, 0), rtol=1e-5, atol=1e-7)
assert np.abs(signed).max() > 0
print("maps agree")
"""


def run(*arguments: str | Path, **options: str) -> subprocess.CompletedProcess:
    """Python with these arguments, without the suite's compiler settings."""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**environment, "PYTHONPATH": str(ROOT), **options},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_whole_network_and_a_training_step_have_the_parity_figures():
    """RCMNet's logits at 363x360, and a step of its backbone with CBAM."""
    parity_folder()
    assert "parity holds" in run("-c", PARITY).stdout


def test_rcmnet_at_full_width_trains_a_few_steps(cells, tmp_path):
    done = run(
        "train.py",
        "--config=configs/cells.py:model=rcmnet,size=32,epochs=2",
        f"--workdir={tmp_path / 'run'}",
        f"--config.data.source={cells}",
        "--config.train.batch_size=16",
        "--config.log.every_steps=1",
        "--config.log.tensorboard=False",
        "--config.log.plots=False",
    )
    assert "test top-1" in done.stdout
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["kind"] == "step"]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    # Three classes, weights as initialised.
    assert abs(rows[0]["train_loss"] - np.log(3)) < 1


def test_the_shipped_network_predicts(tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    grey = np.full((363, 360, 3), 200, np.uint8)
    Image.fromarray(grey).save(images / "blank.png")
    out = tmp_path / "cells.csv"
    run("-m", "rcmnet_jax", "predict", "--model", BUNDLE, "--images", images, "--out", out)
    with out.open(newline="") as file:
        (row,) = csv.DictReader(file)
    probabilities = [float(v) for k, v in row.items() if k.startswith("p_")]
    assert len(probabilities) == 8
    assert sum(probabilities) == pytest.approx(1, abs=1e-3)
    # A blank field is no cell.
    assert row["status"] != "accept"


def test_the_shipped_network_is_explained():
    assert "maps agree" in run("-c", f"import sys{GRAD_CAM}", BUNDLE).stdout
