"""``rcmnet reproduce --status``: how far each run of a plan is, without touching it."""

import datetime
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rcmnet_jax.errors import UserError
from rcmnet_jax.paper.plan import PLAN_FILE
from rcmnet_jax.training.log import read_rows

# The kernel's list of locks, Linux only.
_LOCKS = Path("/proc/locks")


def status_lines(out: Path) -> list[str]:
    """One line for each run of the plan in a folder, and a line that counts the finished runs.

    Args:
      out: the ``--out`` of a reproduction, running or not.

    Raises:
      UserError: there is no plan in the folder.
    """
    path = out / PLAN_FILE
    try:
        runs: Sequence[dict[str, Any]] = json.loads(path.read_text())["runs"]
        states = [run_state(out / run["workdir"], run["epochs"]) for run in runs]
        titles = [run["title"] for run in runs]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read ({error}): give the --out of a rcmnet reproduce call that has"
            " started"
        ) from error
    lines = [
        f"{number:>3}  {title:<60} {state}"
        for number, (title, state) in enumerate(zip(titles, states, strict=True), start=1)
    ]
    done = sum(state.startswith("done") for state in states)
    return [*lines, f"{done} of {len(runs)} runs done"]


def run_state(workdir: Path, epochs: int) -> str:
    """The state of one run, read from the files in its folder; its lock is not taken."""
    metrics, log = workdir / "test_metrics.json", workdir / "metrics.jsonl"
    if metrics.exists():
        accuracy = json.loads(metrics.read_text())["accuracy"]
        return f"done, {accuracy['k']}/{accuracy['n']}"
    locked = _is_locked(workdir / ".lock")
    if not log.exists():
        return "starting" if locked else "not started"
    epoch = max((row["epoch"] for row in read_rows(log) if row["kind"] == "epoch"), default=0)
    last = datetime.datetime.fromtimestamp(log.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
    word = {True: "running", False: "stopped", None: "started"}[locked]
    return f"{word}, epoch {epoch:.0f} of {epochs} done, last entry {last}"


def _is_locked(lock: Path) -> bool | None:
    """Whether a process of this machine holds a lock file; None where that cannot be known."""
    try:
        held = {line.split()[5].rpartition(":")[2] for line in _LOCKS.read_text().splitlines()}
        return lock.exists() and str(lock.stat().st_ino) in held
    except (OSError, IndexError):
        return None
