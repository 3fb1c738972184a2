"""ONNX and StableHLO graphs of all six networks, each run against the network itself."""

import dataclasses
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.evaluation.calibration import apply_temperature
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.interop.stablehlo import read_stablehlo, to_stablehlo, write_stablehlo
from rcmnet_jax.models import create_model
from tests.models.noise import noise_variables
from tests.training.tiny import TinyNet

onnxruntime = pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed")
from rcmnet_jax.interop.onnx import to_onnx  # noqa: E402

NARROW = {"width": 8, "reduction": 4, "stage_sizes": (1, 1, 1, 1)}
# Odd sizes, so that an axis taken for another, or a padding on the wrong side, shows.
CASES = {
    "rcmnet": ("rcmnet", (75, 62), NARROW),
    "rcmnet-group": ("rcmnet", (33, 42), {**NARROW, "norm": "group", "stem": "small"}),
    "resnet18_c": ("resnet18_c", (64, 60), {**NARROW, "spatial_norm": True}),
    "resnet18_m": ("resnet18_m", (70, 64), {"width": 8, "stage_sizes": (1, 2)}),
    "resnet18": ("resnet18", (65, 64), {"width": 4}),
    "vgg19": (
        "vgg19",
        (64, 101),
        {"stages": ((1, 2), (2, 3), (1, 4), (1, 5), (1, 6)), "hidden": 7},
    ),
    "alexnet": ("alexnet", (75, 90), {"hidden": 7}),
}


def restored_of(name, size, options) -> TrainedNetwork:
    model = create_model(name, 3, **options)
    variables = noise_variables(model, (1, *size, 3))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    return TrainedNetwork(
        model, variables, ("a", "b", "c"), Preprocess(*size), mean, std, 0, {}, 1.5
    )


@pytest.fixture(scope="module", params=CASES)
def case(request):
    """(network, images, its logits)."""
    network = restored_of(*CASES[request.param])
    size = network.preprocess
    images = np.random.default_rng(0).integers(
        0, 256, (3, size.height, size.width, 3), dtype=np.uint8
    )
    return network, images, logits_of(network, images)


def logits_of(network, images) -> np.ndarray:
    x = (images.astype(np.float32) / 255 - network.mean) / np.float32(network.std)
    logits = jax.jit(lambda v, x: network.model.apply(v, x, train=False))(
        network.variables, x.astype(np.float32)
    )
    return np.asarray(logits)


def assert_same_outputs(outputs, logits):
    scale = np.abs(logits).max()
    np.testing.assert_allclose(outputs["logits"], logits, rtol=0, atol=1e-5 * scale)
    probabilities = apply_temperature(logits, 1.5)
    np.testing.assert_allclose(outputs["probabilities"], probabilities, rtol=0, atol=1e-5)


def test_onnx_runtime_says_what_the_network_says(case):
    network, images, logits = case
    model = to_onnx(network).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (images, images[:1]):
        values = session.run(["logits", "probabilities"], {"image": batch})
        outputs = dict(zip(("logits", "probabilities"), values, strict=True))
        assert_same_outputs(outputs, logits[: len(batch)])


def test_stablehlo_says_what_the_network_says(case, tmp_path):
    network, images, logits = case
    exported = to_stablehlo(network)
    assert exported.platforms == ("cpu", "cuda")
    write_stablehlo(tmp_path / "a.stablehlo", bytes(exported.serialize()), {"note": "π"})
    call, meta = read_stablehlo(tmp_path / "a.stablehlo")
    assert meta == {"note": "π"}
    assert_same_outputs(call(images), logits)


@pytest.mark.parametrize(
    ("name", "options"), [("rcmnet", {"stage_sizes": (1, 1, 1, 1)}), ("alexnet", {"hidden": 7})]
)
def test_stablehlo_at_full_width_on_one_device(monkeypatch, name, options):
    """As on a laptop. The tests have two devices, where no form takes images in groups."""
    network = restored_of(name, (64, 64), options)
    images = np.random.default_rng(1).integers(0, 256, (3, 64, 64, 3), np.uint8)
    with monkeypatch.context() as patch:
        patch.setattr(jax, "device_count", lambda: 1)
        exported = to_stablehlo(network)
    assert_same_outputs(exported.call(images), logits_of(network, images))


def test_a_stablehlo_file_runs_without_this_library(tmp_path):
    network = restored_of("resnet18", (32, 32), {"width": 8, "stage_sizes": (1, 1, 1, 1)})
    program = bytes(to_stablehlo(network).serialize())
    write_stablehlo(tmp_path / "a.stablehlo", program, {})
    code = (
        "import sys; sys.modules['rcmnet_jax'] = sys.modules['flax'] = None\n"
        "import jax, jax.export, zipfile, numpy as np\n"
        f"program = zipfile.ZipFile({str(tmp_path / 'a.stablehlo')!r}).read('model.jax_export')\n"
        "exported = jax.export.deserialize(bytearray(program))\n"
        "for n in (1, 5):\n"
        "    print(exported.call(np.zeros((n, 32, 32, 3), np.uint8))['probabilities'].shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n")[:2] == ["(1, 3)", "(5, 3)"], done.stderr


def test_damaged_stablehlo_files_are_told(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with zipfile.ZipFile(tmp_path / "b", "w") as archive:
        archive.writestr("meta.json", "{}")
    for name in ("a", "b", "missing"):
        with pytest.raises(CheckpointError, match="cannot be read as a StableHLO export"):
            read_stablehlo(tmp_path / name)


def test_a_network_that_is_not_ours_has_no_onnx_graph():
    network = restored_of(*CASES["alexnet"])
    with pytest.raises(UserError, match="TinyNet cannot be exported"):
        to_onnx(dataclasses.replace(network, model=TinyNet()))


def test_onnx_input_is_what_the_decoder_gives():
    model = to_onnx(restored_of("resnet18", (32, 48), {"width": 8, "stage_sizes": (1, 1, 1, 1)}))
    (image,) = model.graph.input
    sides = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert sides == ["N", 32, 48, 3]
    assert [output.name for output in model.graph.output] == ["logits", "probabilities"]
