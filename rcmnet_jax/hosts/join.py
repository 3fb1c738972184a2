"""Several processes, one run: how they find each other, and how each ends when another is lost.

JAX watches the processes: each sends heartbeats to process 0, and one that is silent for
`HEARTBEAT_SECONDS` ends all others. Most losses show earlier, as a collective that fails.
"""

import os
import re
import sys
import time
from collections.abc import Mapping
from typing import Any

from rcmnet_jax.errors import UserError

# (flag of train.py, environment variable) of each part of the address.
FLAGS = {
    "coordinator": "RCMNET_COORDINATOR",
    "num_processes": "RCMNET_NUM_PROCESSES",
    "process_id": "RCMNET_PROCESS_ID",
}
AUTO = "auto"
# How long processes wait for each other at the start; clusters do not start them all at once.
JOIN_SECONDS = 300
# A process without a heartbeat for this long counts as lost, and JAX ends the others.
HEARTBEAT_SECONDS = 60
# An error that stops every process reaches them within seconds. Process 0 holds JAX's service,
# without which the others abort, so it waits this long for them to report theirs.
REPORT_SECONDS = 5.0
# What collectives, barriers and RPCs of JAX say when another process does not answer.
_LOST_PATTERN = re.compile(
    r"Gloo \S+ failed|NCCL|heartbeat timeout|Barrier (failed|timed out)|oordination ?service",
    re.IGNORECASE,
)


class Hosts:
    """The processes of this run, as seen from this one."""

    def __init__(self, process: int, count: int):
        self.process, self.count = process, count

    @property
    def first(self) -> bool:
        """Whether this process writes logs and reports."""
        return self.process == 0

    def lost_another(self, error: BaseException) -> bool:
        """Whether an error, or one that led to it, comes from the loss of another process."""
        return self.count > 1 and any(_LOST_PATTERN.search(str(e)) for e in _chain(error))

    def end_after_error(self, status: int) -> None:
        """Ends this process at once where it is one of several.

        At a normal exit JAX waits for all processes, which after an error would wait for this one,
        and finally aborts. Ending at once closes the connections, which the others notice.
        """
        if self.count == 1:
            return
        if self.first:
            time.sleep(REPORT_SECONDS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def lost_message(count: int) -> str:
    """The last line of a process that ends because another one is lost."""
    return (
        f"another of the {count} processes is gone (killed, out of memory, or its machine or"
        " network failed; its own output says more): start all of them again with the same"
        " command, and the run goes on from its last checkpoint"
    )


def join_hosts(given: Mapping[str, str]) -> Hosts:
    """Connects this process with the others of its run. Call it before anything uses a device.

    Args:
      given: values of the `FLAGS` on the command line, "" where not given; then the environment
        counts. ``coordinator=auto``, or a SLURM step of several tasks, lets JAX find the rest.

    Returns:
      The processes; one alone where nothing asks for several.

    Raises:
      UserError: an incomplete or wrong address, or processes that do not come.
    """
    address = {flag: given.get(flag) or os.environ.get(name, "") for flag, name in FLAGS.items()}
    if not any(address.values()):
        if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
            return Hosts(0, 1)
        address["coordinator"] = AUTO
    arguments = {} if address["coordinator"] == AUTO else _checked(address)
    import jax

    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=JOIN_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of the run did not find each other ({_first_line(error)}): start all of"
            " them with the same --coordinator HOST:PORT, reachable from each, within"
            f" {JOIN_SECONDS} s"
        ) from error
    hosts = Hosts(jax.process_index(), jax.process_count())
    # JAX may abort this process, after which nothing of ours can be printed.
    print(
        f"process {hosts.process} of {hosts.count}; if one is lost the others end within"
        f" {HEARTBEAT_SECONDS} s: start all of them again with the same command to go on",
        file=sys.stderr,
    )
    return hosts


def _checked(address: Mapping[str, str]) -> dict[str, Any]:
    missing = [flag for flag, value in address.items() if not value]
    if missing:
        names = " and ".join(f"--{flag} (or ${FLAGS[flag]})" for flag in missing)
        raise UserError(f"a run of several processes needs {names} too: see docs/scaling.md")
    host, colon, port = address["coordinator"].rpartition(":")
    if not (host and colon and port.isdigit()):
        raise UserError(
            f"--coordinator {address['coordinator']!r} is not HOST:PORT of process 0, nor auto"
        )
    try:
        count, process = int(address["num_processes"]), int(address["process_id"])
    except ValueError as error:
        raise UserError("--num_processes and --process_id must be numbers") from error
    if not 0 <= process < count:
        raise UserError(
            f"--process_id {process} of {count} does not exist: count from 0 to {count - 1}"
        )
    return {
        "coordinator_address": address["coordinator"],
        "num_processes": count,
        "process_id": process,
    }


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error and all that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
