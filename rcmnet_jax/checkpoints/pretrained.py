"""The trained networks that come with a checkout, by name."""

from pathlib import Path

from rcmnet_jax.checkpoints.open_model import load_model
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.inference.network import TrainedNetwork

FOLDER = Path("checkpoints", "pretrained")
SUFFIX = ".rcmnet"


def pretrained(name: str | Path) -> TrainedNetwork:
    """Opens a shipped network by its name, or a bundle or run by its path; downloads nothing.

    Args:
      name: such as ``pbc_rcmnet_64``, looked for in ``checkpoints/pretrained`` of the checkout
        that the package runs from and of the current folder; or a path.

    Raises:
      CheckpointError: it is not there, or is damaged.
    """
    if Path(name).exists():
        return load_model(name)
    folders = [Path(__file__).parents[2] / FOLDER, FOLDER]
    for folder in folders:
        path = folder / f"{name}{SUFFIX}"
        if path.is_file():
            return load_model(path)
    known = sorted({path.stem for folder in folders for path in folder.glob(f"*{SUFFIX}")})
    raise CheckpointError(
        f"there is no network {str(name)!r}: "
        + (f"choose from {', '.join(known)}, or give" if known else "give")
        + " the path of a bundle (the shipped ones are in checkpoints/pretrained of a checkout;"
        " an installed package brings none)"
    )
