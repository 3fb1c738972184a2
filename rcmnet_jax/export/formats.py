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
from rcmnet_jax.export.parity import Parity, compare_logits
from rcmnet_jax.files import replacing
from rcmnet_jax.inference.engine import Engine
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.interop.torch import from_torch_state_dict, to_torch_state_dict
from rcmnet_jax.scoring.run_data import RunData


def export_onnx(
    restored: TrainedNetwork, out: Path, *, data: RunData | None, batch_size: int = 64, **texts: Any
) -> Parity:
    """Writes an ONNX file, run by ONNX Runtime on the test part before.

    Args:
      restored: the network.
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
    restored = _in_float32(restored)
    model = to_onnx(restored)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    parity = compare_logits(
        restored,
        lambda pixels: session.run(["logits"], {"image": np.ascontiguousarray(pixels)})[0],
        data,
        Engine(restored, batch_size=batch_size),
        what="ONNX file",
    )
    for key, value in describe(restored, parity, **texts).items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    with replacing(out) as temporary:
        temporary.write_bytes(model.SerializeToString())
    return parity


def export_stablehlo(
    restored: TrainedNetwork, out: Path, *, data: RunData | None, batch_size: int = 64, **texts: Any
) -> Parity:
    """Writes a StableHLO file, run through its serialised form on the test part before.

    Only the platform at hand can be run; arguments and errors as `export_onnx`.
    """
    from rcmnet_jax.interop.stablehlo import PLATFORMS, to_stablehlo, write_stablehlo

    restored = _in_float32(restored)
    program = bytes(to_stablehlo(restored).serialize())
    call = jax.jit(export.deserialize(bytearray(program)).call)
    parity = compare_logits(
        restored,
        lambda pixels: np.asarray(call(pixels)["logits"]),
        data,
        Engine(restored, batch_size=batch_size),
        what="StableHLO file",
    )
    meta = {**describe(restored, parity, **texts), "platforms": list(PLATFORMS)}
    write_stablehlo(out, program, meta)
    return parity


def export_torch(
    restored: TrainedNetwork, out: Path, *, data: RunData | None, batch_size: int = 64, **texts: Any
) -> Parity:
    """Writes a PyTorch state dict, read back and asked on the test part before.

    The names are torchvision's; the description goes into the metadata of a safetensors file.
    """
    from rcmnet_jax.interop.torch_files import write_torch_file

    options = dict(restored.meta["config"]["model"])
    name = options.pop("name")
    state = to_torch_state_dict(name, restored.variables)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    classes = len(restored.class_names)
    back = from_torch_state_dict(name, state, num_classes=classes, **options)
    # A network without batch norm comes back without the empty collection.
    engine = Engine(
        dataclasses.replace(restored, variables={"batch_stats": {}, **back}), batch_size=batch_size
    )
    parity = compare_logits(
        restored,
        lambda pixels: engine.rows(pixels, np.arange(len(pixels))).logits,
        data,
        Engine(restored, batch_size=batch_size),
        what="state dict",
    )
    description = describe(restored, parity, **texts)
    metadata = {k: v if isinstance(v, str) else json.dumps(v) for k, v in description.items()}
    write_torch_file(out, state, metadata)
    return parity


def describe(
    restored: TrainedNetwork,
    parity: Parity,
    *,
    licence: str | None = None,
    citation: str | None = None,
) -> dict[str, Any]:
    """What a file says about itself: how to feed it, what its numbers mean, that it was checked."""
    return {
        "model": restored.meta["config"]["model"],
        "class_names": list(restored.class_names),
        "preprocess": restored.preprocess.to_dict(),
        "decoding": (
            "EXIF rotation, 8-bit RGB, transparency over white, scaled to cover height x width"
            " and cropped evenly in one antialiased bicubic resampling; docs/weights.md"
        ),
        "mean": list(restored.mean),
        "std": list(restored.std),
        "temperature": restored.temperature,
        "parity": parity.to_dict(),
        "data_sha256": restored.meta["data"]["sha256"],
        "split_sha256": restored.meta["split"]["sha256"],
        "licence": licence_text(restored, licence),
        "citation": citation_text(restored, citation),
        "rcmnet_jax": rcmnet_jax.__version__,
    }


def _in_float32(restored: TrainedNetwork) -> TrainedNetwork:
    """The network computing in float32, as the exports do; the check compares with that."""
    return dataclasses.replace(restored, model=restored.model.clone(dtype=jnp.float32))
