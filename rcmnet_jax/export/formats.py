"""Networks for other frameworks: each file is made, checked on the test part, then written."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

import rcmnet_jax
from rcmnet_jax.errors import UserError
from rcmnet_jax.export.card import citation_text, licence_text
from rcmnet_jax.export.parity import Parity, compare_logits, logits_by_network
from rcmnet_jax.files import replacing
from rcmnet_jax.inference import TrainedNetwork
from rcmnet_jax.interop.torch import from_torch_state_dict, to_torch_state_dict
from rcmnet_jax.scoring.run_data import RunData


def export_onnx(
    network: TrainedNetwork, out: Path, *, data: RunData | None, batch_size: int = 64, **texts: Any
) -> Parity:
    """Writes an ONNX file, run by ONNX Runtime on the test part before.

    Args:
      network: the network.
      out: the file.
      data: the run's images; random ones are compared on without.
      batch_size: images a call.
      **texts: licence and citation.

    Raises:
      UserError: the packages are not installed.
      ParityError: it does not agree with the network.
    """
    try:
        import onnxruntime

        from rcmnet_jax.interop.onnx import to_onnx
    except ImportError as error:
        raise UserError(
            f"ONNX export takes onnx and onnxruntime ({error}): pip install 'rcmnet-jax[onnx]'"
        ) from error
    network = _in_float32(network)
    model = to_onnx(network)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    parity = compare_logits(
        network,
        lambda pixels: session.run(["logits"], {"image": np.ascontiguousarray(pixels)})[0],
        data,
        what="ONNX file",
        batch_size=batch_size,
    )
    for key, value in describe(network, parity, **texts).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    with replacing(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return parity


def export_stablehlo(
    network: TrainedNetwork, out: Path, *, data: RunData | None, batch_size: int = 64, **texts: Any
) -> Parity:
    """Writes a StableHLO file, run through its serialised form on the test part before.

    Only the platform at hand can be run; arguments and errors as `export_onnx`.
    """
    from rcmnet_jax.interop.stablehlo import PLATFORMS, to_stablehlo, write_stablehlo

    network = _in_float32(network)
    program = bytes(to_stablehlo(network).serialize())
    call = jax.jit(export.deserialize(bytearray(program)).call)
    parity = compare_logits(
        network,
        lambda pixels: np.asarray(call(pixels)["logits"]),
        data,
        what="StableHLO file",
        batch_size=batch_size,
    )
    meta = {**describe(network, parity, **texts), "platforms": list(PLATFORMS)}
    write_stablehlo(out, program, meta)
    return parity


def export_torch(
    network: TrainedNetwork, out: Path, *, data: RunData | None, batch_size: int = 64, **texts: Any
) -> Parity:
    """Writes a PyTorch state dict, read back and asked on the test part before.

    The names are torchvision's; the description goes into the metadata of a safetensors file.
    """
    from rcmnet_jax.interop.torch_files import write_torch_file

    options = dict(network.meta["config"]["model"])
    name = options.pop("name")
    state = to_torch_state_dict(name, network.variables)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    classes = len(network.class_names)
    back = from_torch_state_dict(name, state, num_classes=classes, **options)
    # A network without batch norm comes back without the empty collection.
    read_back = dataclasses.replace(network, variables={"batch_stats": {}, **back})
    parity = compare_logits(
        network,
        logits_by_network(read_back, batch_size),
        data,
        what="state dict",
        batch_size=batch_size,
    )
    description = describe(network, parity, **texts)
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in description.items()}
    write_torch_file(out, state, metadata)
    return parity


def describe(
    network: TrainedNetwork,
    parity: Parity,
    *,
    licence: str | None = None,
    citation: str | None = None,
) -> dict[str, Any]:
    """What a file says about itself: how to feed it, what its numbers mean, that it was checked."""
    return {
        "model": network.meta["config"]["model"],
        "class_names": list(network.class_names),
        "preprocess": network.preprocess.to_dict(),
        "decoding": (
            "EXIF rotation, 8-bit RGB, transparency over white, scaled to cover height x width"
            " and cropped evenly in one antialiased bicubic resampling; docs/weights.md"
        ),
        "mean": list(network.mean),
        "std": list(network.std),
        "temperature": network.temperature,
        "parity": parity.to_dict(),
        "data_sha256": network.meta["data"]["sha256"],
        "split_sha256": network.meta["split"]["sha256"],
        "licence": licence_text(network, licence),
        "citation": citation_text(network, citation),
        "rcmnet_jax": rcmnet_jax.__version__,
    }


def _in_float32(network: TrainedNetwork) -> TrainedNetwork:
    """The network computing in float32, as the exports do; the check compares with that."""
    return dataclasses.replace(network, model=network.model.clone(dtype=jnp.float32))
