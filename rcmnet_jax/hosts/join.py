"""Several processes, one run: how they find each other, and what each does when another is gone.

JAX alone waits for a lost process for minutes, or aborts with a stack trace. Here every process
holds a connection to process 0. The kernel closes the connections of a process that dies, however
it dies, and the others end at once with one line and exit status 75.
"""

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
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
# Until all processes are there; those of a cluster do not start in the same second.
JOIN_SECONDS = 300
# A process that is told of a loss by an error of a collective gives the watch time to say more.
SETTLE_SECONDS = 5.0
LOST = 75
_ADDRESS_KEY = "rcmnet/watch"
_DONE, _GONE = b"d", b"g"


class Hosts:
    """The processes of this run, as this one knows them; `alone` where there is one."""

    def __init__(self, process: int, count: int, watch: "_Watch | None"):
        self.process, self.count, self._watch = process, count, watch

    @property
    def first(self) -> bool:
        """Whether this process writes logs and reports."""
        return self.process == 0

    def settle(self) -> None:
        """Called on an error that may come of another's loss: the watch ends this process then."""
        if self._watch is not None:
            time.sleep(SETTLE_SECONDS)

    def leave(self, status: int) -> None:
        """At the end of the command: in order, or, after an error, at once.

        An error in one process would keep all others waiting for it, and itself for them, so it
        ends without the farewells of JAX; the others see the connection closed.
        """
        if self._watch is None:
            return
        if status in (0, LOST):
            self._watch.say_done()
            return
        _end(status)


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
            return Hosts(0, 1, None)
        address["coordinator"] = AUTO
    arguments = {} if address["coordinator"] == AUTO else _checked(address)
    import jax

    # What the others send comes by way of the main host's name, never of a proxy.
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=JOIN_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes of the run did not find each other ({_first_line(error)}): start all of"
            " them with the same --coordinator HOST:PORT, reachable from each, within"
            f" {JOIN_SECONDS} s"
        ) from error
    return Hosts(jax.process_index(), jax.process_count(), _Watch.start())


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


class _Watch:
    """The connections between process 0 and each other, and a thread for each that listens."""

    def __init__(self, process: int, count: int):
        self._process, self._count = process, count
        self._connections: dict[int, socket.socket] = {}
        self._done: set[int] = set()
        self._lock = threading.Lock()

    @classmethod
    def start(cls) -> "_Watch":
        """Connects, with the address that process 0 publishes through JAX."""
        from jax._src import distributed

        state: Any = distributed.global_state
        watch = cls(state.process_id, state.num_processes)
        if watch._process == 0:
            listener = socket.create_server(("", 0), backlog=watch._count)
            token = secrets.token_hex(16)
            record = {"port": listener.getsockname()[1], "token": token}
            state.client.key_value_set(_ADDRESS_KEY, json.dumps(record))
            watch._accept(listener, token)
        else:
            record = json.loads(state.client.blocking_key_value_get(_ADDRESS_KEY, 60_000))
            host = state.coordinator_address.rpartition(":")[0].strip("[]")
            watch._connect(host, record["port"], record["token"])
        return watch

    def _accept(self, listener: socket.socket, token: str) -> None:
        """Waits for all others; who does not know the token is none of them."""
        listener.settimeout(60)
        try:
            while len(self._connections) < self._count - 1:
                connection, _ = listener.accept()
                connection.settimeout(10)
                words = connection.recv(64).decode("ascii", "replace").split()
                if len(words) == 2 and words[0] == token and words[1].isdigit():
                    self._listen(int(words[1]), connection)
                else:
                    connection.close()
        except OSError as error:
            raise UserError(
                f"{self._count - 1 - len(self._connections)} processes could not connect to"
                " process 0: let the machines reach each other on all ports"
            ) from error
        finally:
            listener.close()

    def _connect(self, host: str, port: int, token: str) -> None:
        try:
            connection = socket.create_connection((host, port), timeout=60)
            connection.sendall(f"{token} {self._process}".encode())
        except OSError as error:
            raise UserError(
                f"process 0 on {host} cannot be reached on port {port} ({error}): let the machines"
                " reach each other on all ports"
            ) from error
        self._listen(0, connection)

    def _listen(self, other: int, connection: socket.socket) -> None:
        # So that a machine that is switched off is noticed too, within half a minute.
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 4)):
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)
        self._connections[other] = connection
        threading.Thread(target=self._hear, args=(other, connection), daemon=True).start()

    def _hear(self, other: int, connection: socket.socket) -> None:
        while True:
            try:
                said = connection.recv(1)
            except OSError:
                said = b""
            if said == _DONE:
                self._done.add(other)
            elif said == _GONE:
                # Process 0 has heard of a loss that this one cannot see.
                self._end_because(int(connection.recv(16) or b"0"))
            elif not said:
                if other not in self._done:
                    self._end_because(other)
                return

    def _end_because(self, lost: int) -> None:
        with self._lock:
            for connection in self._connections.values() if self._process == 0 else ():
                with contextlib.suppress(OSError):
                    connection.sendall(_GONE + str(lost).encode())
            print(
                f"error: process {lost} of {self._count} is gone (killed, out of memory, or its"
                " machine or network failed; its own output says more): start all of them again"
                " with the same command, and the run goes on from its last checkpoint",
                file=sys.stderr,
            )
            _end(LOST)

    def say_done(self) -> None:
        """Tells the others that this process ends in order."""
        for connection in self._connections.values():
            with contextlib.suppress(OSError):
                connection.sendall(_DONE)


def _end(status: int) -> None:
    """Ends the process without the farewells of JAX, which would wait for the others."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
