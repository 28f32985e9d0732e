"""A connection to the coordinator of a `jax.distributed` job that survives the loss of process 0.

JAX (0.10.2) aborts a process as soon as its connection to the coordinator breaks: SIGABRT and 75
lines of native stack, before Python sees any error. A callback cannot prevent that: the argument of
`missed_heartbeat_callback` has no Python type, and the call ends in `std::bad_cast`. So each of the
other processes connects to its own relay. When the coordinator closes the connection, the relay
keeps the local one open, and the next exchange between the processes raises an error that Python
can handle.
"""

import contextlib
import functools
import socket
import threading
import time
from collections.abc import Callable

_RETRY = 0.2  # seconds between attempts to connect to a coordinator that has not started
_SIZE = 1 << 16


def relay(host: str, port: int, on_loss: Callable[[], None]) -> int:
    """Relays connections from a local port, which it returns, to a coordinator, in threads.

    Args:
      host: host of the coordinator.
      port: port of the coordinator.
      on_loss: called in a thread when the coordinator closes a connection first, because it has
        exited or was killed.

    Returns:
      The port, on 127.0.0.1.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            near, _ = listener.accept()
            _start(_connect, near, (host, port), on_loss)

    _start(accept)
    return int(listener.getsockname()[1])


def _connect(near: socket.socket, address: tuple[str, int], on_loss: Callable[[], None]) -> None:
    """Copies both ways between a connection of this process and a new one to the coordinator."""
    far = _reach(address)
    _start(_copy, near, far, functools.partial(_close, near, far))
    _copy(far, near, lambda: on_loss() if near.fileno() >= 0 else None)


def _reach(address: tuple[str, int]) -> socket.socket:
    while True:  # until JAX gives up and the program exits
        with contextlib.suppress(OSError):
            return socket.create_connection(address)
        time.sleep(_RETRY)


def _copy(source: socket.socket, target: socket.socket, at_end: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_SIZE):
            target.sendall(data)
    at_end()


def _close(near: socket.socket, far: socket.socket) -> None:
    near.close()
    with contextlib.suppress(OSError):  # ends the copying in the other direction
        far.shutdown(socket.SHUT_RDWR)
    far.close()


def _start(run: Callable[..., None], *args: object) -> None:
    threading.Thread(target=run, args=args, daemon=True).start()
