"""Opening a trained network: a training run in its folder, or a portable bundle."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcmnet_jax.checkpoints.bundle import is_bundle, read_bundle
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.inference.network import TrainedNetwork, abstract_variables
from rcmnet_jax.models import create_model

if TYPE_CHECKING:
    from rcmnet_jax.checkpoints.store import CheckpointStore


def load_model(path: str | Path) -> TrainedNetwork:
    """Opens a bundle, the best checkpoint of a training run, or a checkpoint by its folder.

    Args:
      path: what ``rcmnet export --out`` wrote, what ``train.py --workdir`` was given, or in it
        ``checkpoints/best`` or ``checkpoints/best/STEP``.

    Raises:
      CheckpointError: there is none of these, or it is damaged.
    """
    path = Path(path)
    if is_bundle(path):
        return read_bundle(path)
    directory, step = _checkpoint_folder(path)
    # Only here: a bundle opens without Orbax.
    from rcmnet_jax.checkpoints.store import CheckpointStore

    store = CheckpointStore(directory, read_only=True, only_step=step)
    with contextlib.closing(store):
        return _restore(store, directory)


def run_folder(path: str | Path) -> Path | None:
    """The folder of the run that a path names, itself or by a checkpoint in it; None for others."""
    try:
        directory, _ = _checkpoint_folder(Path(path))
    except CheckpointError:
        return None
    return directory.parent.parent


def _checkpoint_folder(path: Path) -> tuple[Path, int | None]:
    """The series of checkpoints that a path names, and the step where it names one of them."""
    # Absolute, so that "." has a name and parents.
    place = path.absolute()
    for folder in (place / "checkpoints" / "best", place / "best", place):
        if folder.name == "best" and folder.parent.name == "checkpoints" and folder.is_dir():
            return folder, None
    if place.name.isdigit() and place.parent.name == "best" and place.is_dir():
        return place.parent, int(place.name)
    raise CheckpointError(
        f"{path} holds no trained model: give the --workdir of a train.py run that has finished at"
        " least one epoch, its folder checkpoints/best, or a bundle written by `rcmnet export`"
    )


def load_run(workdir: str | Path) -> TrainedNetwork:
    """`load_model`, by the name it had when there were only runs."""
    return load_model(workdir)


def _restore(store: "CheckpointStore", directory: Path) -> TrainedNetwork:
    if not store.steps:
        raise CheckpointError(f"{directory} holds no checkpoint: train for at least one epoch")
    problem: Exception | None = None
    # The record says how to build the network, and may itself be what is damaged.
    for meta in store.metas():
        try:
            return _restore_as(store, meta)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            problem = problem or error
    reason = f" ({problem})" if problem is not None else ""
    raise CheckpointError(
        f"no checkpoint in {directory} can be read{reason}: restore it from a copy"
    ) from problem


def _restore_as(store: "CheckpointStore", meta: dict[str, Any]) -> TrainedNetwork:
    """The newest whole checkpoint, of a network as this record has it."""
    preprocess = Preprocess.from_dict(meta["preprocess"])
    model = create_model(num_classes=len(meta["class_names"]), **meta["config"]["model"])
    saved = store.restore(abstract_variables(model, preprocess))
    assert saved is not None  # There are steps, and none that is whole is an error.
    # From here on what belongs to the arrays, which is proved to be what was saved.
    meta = saved.meta
    return TrainedNetwork(
        model=model,
        variables=saved.state,
        class_names=tuple(meta["class_names"]),
        preprocess=Preprocess.from_dict(meta["preprocess"]),
        mean=tuple(meta["normalization"]["mean"]),
        std=tuple(meta["normalization"]["std"]),
        step=saved.step,
        meta=meta,
    )
