"""State dicts in files: safetensors always, PyTorch's pickles where PyTorch is installed.

A ``.pth`` file is a pickle, and unpickling can run anything: it is opened by ``torch.load`` with
``weights_only=True``, which builds tensors and containers and nothing else. Prefer safetensors.
"""

import dataclasses
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (numpy learns bfloat16 from it, which safetensors may hold)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.files import replacing

SAFETENSORS = ".safetensors"
PICKLED = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar")
ENDINGS = (SAFETENSORS, *PICKLED)
# Under which training scripts put the state dict into a checkpoint.
WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "module")


@dataclasses.dataclass(frozen=True, eq=False)
class TorchFile:
    """A state dict as it lies in a file.

    Attributes:
      path: the file.
      state: arrays by name, in PyTorch's layout.
      metadata: what a safetensors file says about itself.
      sha256: of the file.
    """

    path: Path
    state: dict[str, np.ndarray]
    metadata: dict[str, str]
    sha256: str


def is_torch_file(path: str | Path) -> bool:
    """Whether a file holds PyTorch's weights, by its content; by its name where that is unclear."""
    return _format_of(Path(path)) is not None


def _format_of(path: Path) -> str | None:
    """``safetensors``, ``pickled``, or None for anything else."""
    try:
        with path.open("rb") as stream:
            head = stream.read(16)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
            return "pickled" if any(name.endswith("data.pkl") for name in names) else None
    except (OSError, zipfile.BadZipFile, ValueError):
        head = b""
    # Eight bytes of length, then JSON; the older PyTorch format is a bare pickle.
    if head[8:9] == b"{" and head[4:8] == bytes(4):
        return "safetensors"
    if head.startswith(b"\x80\x02") or path.name.lower().endswith(PICKLED):
        return "pickled"
    return "safetensors" if path.suffix.lower() == SAFETENSORS else None


def read_torch_file(path: str | Path) -> TorchFile:
    """Reads a state dict; nothing in the file is executed.

    Raises:
      CheckpointError: no such file, a damaged one, one that is more than weights, or a ``.pth``
        where PyTorch is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: name a {', '.join(ENDINGS)} file")
    if _format_of(path) == "safetensors":
        state, metadata = _read_safetensors(path)
    else:
        state, metadata = _read_pickled(path), {}
    if not state:
        raise CheckpointError(f"{path} holds no arrays: save the model's state_dict()")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return TorchFile(path, state, metadata, digest)


def write_torch_file(
    path: str | Path, state: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a state dict, whole or not at all.

    Args:
      path: ``.safetensors``, or ``.pth``, which takes PyTorch and keeps no metadata.
      state: from `to_torch_state_dict`.
      metadata: strings by name, for safetensors.

    Raises:
      UserError: another ending, or the file cannot be written.
    """
    path = Path(path)
    with replacing(path) as temporary:
        if path.suffix == SAFETENSORS:
            # "pt" is what transformers and timm look for before they load.
            said = {"format": "pt", **(metadata or {})}
            temporary.write_bytes(save(dict(state), metadata=said))
        elif path.suffix in PICKLED:
            torch = _import_torch(path)
            tensors = {name: torch.from_numpy(array.copy()) for name, array in state.items()}
            torch.save(tensors, temporary)
        else:
            raise UserError(f"{path} does not end in {' or '.join(ENDINGS)}: choose one of them")


def _read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    try:
        with safe_open(path, framework="numpy") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return state, dict(file.metadata() or {})
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as safetensors ({error}): download it again"
        ) from error


def _read_pickled(path: Path) -> dict[str, np.ndarray]:
    torch = _import_torch(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its unpickler met.
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise CheckpointError(
            f"{path} cannot be read as weights alone ({first[:150]}): save the model's"
            " state_dict(), best with safetensors.torch.save_file"
        ) from error
    return {name: _array(tensor) for name, tensor in _unwrapped(loaded, path, torch).items()}


def _unwrapped(loaded: Any, path: Path, torch: Any) -> dict[str, Any]:
    """The tensors by name, from inside whatever a training script wrapped them in."""
    while isinstance(loaded, Mapping):
        inner = [name for name in WRAPPERS if isinstance(loaded.get(name), Mapping)]
        if not inner:
            return {str(n): t for n, t in loaded.items() if isinstance(t, torch.Tensor)}
        loaded = loaded[inner[0]]
    raise CheckpointError(f"{path} holds no state dict: save the model's state_dict()")


def _array(tensor: Any) -> np.ndarray:
    tensor = tensor.detach()
    # numpy has no bfloat16; half precision would come out as float32 later anyway.
    return (tensor.float() if tensor.is_floating_point() else tensor).numpy()


def _import_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise CheckpointError(
            f"{path} takes PyTorch: pip install 'rcmnet-jax[torch]', or use .safetensors"
            " (safetensors.torch.save_file(model.state_dict(), ...))"
        ) from error
    return torch
