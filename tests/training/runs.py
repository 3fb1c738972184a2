"""Small runs: their configs, and what they leave."""

import json
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from rcmnet_jax.checkpoints import CheckpointStore
from tests.training import tiny_config


def config_of(source: Path, arg: str = "", **changes: Any) -> ml_collections.ConfigDict:
    """The tests' experiment on a folder, with keys changed: ``config_of(cells, **{"seed": 1})``."""
    config = tiny_config.get_config(f"model=resnet18,size=32,epochs=2{',' if arg else ''}{arg}")
    config.data.source = str(source)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def rows_of(workdir: Path, kind: str | None = None) -> list[dict[str, Any]]:
    """The metrics rows, all or of one kind."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if kind is None or row["kind"] == kind]


def last_digest(workdir: Path) -> tuple[int, str]:
    """Step of the newest training state, and the SHA-256 of its arrays."""
    newest = max((int(p.name), p) for p in (workdir / "checkpoints" / "last").iterdir())
    return newest[0], json.loads((newest[1] / "progress" / "metadata").read_text())["sha256"]


def saved_arrays(directory: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint of a series, by its path, whatever it was saved from."""
    import orbax.checkpoint as ocp

    newest = max((int(p.name), p) for p in directory.iterdir())[1]
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        shapes = reader.metadata(newest / "state").item_metadata.tree
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
        arguments = ocp.args.PyTreeRestore(restore_args=as_numpy)
        tree = reader.restore(newest / "state", args=arguments)
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def assert_same_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    """Bit for bit, leaf by leaf."""
    assert first.keys() == second.keys()
    for path, array in first.items():
        assert array.dtype == second[path].dtype
        np.testing.assert_array_equal(array, second[path], err_msg=path)


def open_store(directory: Path) -> CheckpointStore:
    """A series of a finished run, to look into."""
    return CheckpointStore(directory, read_only=True)
