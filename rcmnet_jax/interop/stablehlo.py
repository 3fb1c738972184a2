"""A network as StableHLO, through ``jax.export``: one program for CPU and CUDA, any batch size.

The file is a zip of ``model.jax_export`` (what ``jax.export`` serialises, weights inside) and
``meta.json``. It runs with jax alone, without this library:

    import jax, zipfile
    program = zipfile.ZipFile("model.stablehlo").read("model.jax_export")
    outputs = jax.export.deserialize(bytearray(program)).call(images)   # uint8 (N, H, W, 3)

jax promises to read such programs for half a year; for longer keep the bundle, which holds the
weights and not a program.
"""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.files import replacing
from rcmnet_jax.inference.network import TrainedNetwork

PLATFORMS = ("cpu", "cuda")
PROGRAM, META = "model.jax_export", "meta.json"
# Fixed, so that the same content gives the same bytes.
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def to_stablehlo(network: TrainedNetwork) -> export.Exported:
    """The network as a program from uint8 images (N, H, W, 3) to ``logits`` and ``probabilities``.

    Note:
      On a CPU the convolutions are formulated for the CPU (`rcmnet_jax.kernels.conv`); the program
      computes the same on CUDA, where XLA's own would be faster. Export on a GPU for that.
    """
    temperature = network.temperature or 1.0

    def program(image_BxHxWx3: jax.Array) -> dict[str, jax.Array]:
        x = network.standardize(image_BxHxWx3)
        logits: Any = network.model.apply(network.variables, x, train=False)
        return {"logits": logits, "probabilities": jax.nn.softmax(logits / temperature)}

    size = network.preprocess
    (batch,) = export.symbolic_shape("N")
    image = jax.ShapeDtypeStruct((batch, size.height, size.width, 3), jnp.uint8)
    return export.export(jax.jit(program), platforms=PLATFORMS)(image)


def write_stablehlo(path: Path, program: bytes, meta: Mapping[str, Any]) -> None:
    """Writes program and description, whole or not at all."""
    with (
        replacing(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        archive.writestr(zipfile.ZipInfo(META, _TIMESTAMP), json.dumps(meta, indent=1))
        archive.writestr(zipfile.ZipInfo(PROGRAM, _TIMESTAMP), program)


def read_stablehlo(path: str | Path) -> tuple[Callable[[Any], dict[str, jax.Array]], dict]:
    """A compiled callable of a file, and its description.

    Raises:
      CheckpointError: no such file, or a damaged one.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            meta = json.loads(archive.read(META))
            exported = export.deserialize(bytearray(archive.read(PROGRAM)))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a StableHLO export ({error}): export it again"
        ) from error
    return jax.jit(exported.call), meta
