"""TVM's RPC tracker, spoken to with timeouts: TVM's own client waits a minute for a tracker that is not there, and forever for a server.

The protocol: four bytes of magic each way, then messages of a length (little-endian int32) and that many bytes of JSON.
"""

import json
import select
import socket
import struct
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from billhook.ir.errors import DeviceError

from .device import Address

_MAGIC = 0x2F271
_SUCCESS, _REQUEST, _SUMMARY = 0, 4, 6
_LOOK = 1.0  # seconds between looks at the tracker while waiting for a server
_LONGEST = 1 << 24  # bytes of a message: more is not a tracker


@dataclass(frozen=True, slots=True)
class Grant:
    """A server that is ours for one session; `key` proves it to the server."""

    host: str
    port: int
    key: str


def registered(tracker: Address, key: str, timeout: float = 5.0) -> int:
    """How many servers are registered under a key, busy ones included. DeviceError where there is no tracker."""
    with _connected(tracker, timeout) as connection:
        _send(connection, [_SUMMARY])
        summary = _reply(connection, tracker)
    return sum(server.get("key") == f"server:{key}" for server in summary["server_info"])


def request(tracker: Address, key: str, timeout: float, patience: float, grace: float = 0.0) -> Grant:
    """A server with this key, waited for while others use it.

    timeout: seconds for the tracker to answer; patience: seconds to wait for a server that is busy; grace: seconds to wait for a
    server to register where none is, since a board that restarts comes back.

    Raises:
        DeviceError: there is no tracker, or in the given time no server; the message says whether there is one.
    """
    begun = seen = time.monotonic()
    with _connected(tracker, timeout) as connection:
        _send(connection, [_REQUEST, key, "", 1])
        while not select.select([connection], [], [], min(_LOOK, patience))[0]:
            now = time.monotonic()
            servers = registered(tracker, key, timeout)
            seen = now if servers else seen
            if now - seen >= grace and not servers:
                raise no_server(tracker, key)
            if now - begun >= patience:
                raise DeviceError(f"the {servers} servers '{key}' at {tracker} were busy for {patience:g} s; try later or add a server")
        host, port, match = _reply(connection, tracker)
    return Grant(host, port, match)


def no_server(tracker: Address, key: str) -> DeviceError:
    """The error that nobody is registered under a key."""
    how = f"python -m tvm.exec.rpc_server --tracker {tracker} --key {key}"
    return DeviceError(f"no server is registered as '{key}' at the tracker {tracker}; start one on the device: {how}")


@contextmanager
def _connected(tracker: Address, timeout: float) -> Generator[socket.socket]:
    try:
        connection = socket.create_connection((tracker.host, tracker.port), timeout)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        how = f"python -m tvm.exec.rpc_tracker --host 0.0.0.0 --port {tracker.port}"
        raise DeviceError(f"no tracker answers at {tracker} ({reason}); correct the address or start one there: {how}") from error
    with connection:
        try:
            connection.sendall(struct.pack("<i", _MAGIC))
            magic = _receive(connection, 4)
        except OSError as error:
            raise DeviceError(f"what listens at {tracker} is no TVM tracker ({error}); correct the address") from error
        if magic != struct.pack("<i", _MAGIC):
            raise DeviceError(f"what listens at {tracker} is no TVM tracker; correct the address")
        yield connection


def _send(connection: socket.socket, message: list[Any]) -> None:
    data = json.dumps(message).encode()
    connection.sendall(struct.pack("<i", len(data)) + data)


def _reply(connection: socket.socket, tracker: Address) -> Any:
    """The value of a successful reply."""
    try:
        (size,) = struct.unpack("<i", _receive(connection, 4))
        reply = json.loads(_receive(connection, size)) if 0 < size <= _LONGEST else [None]
    except OSError as error:  # a timeout is one
        raise DeviceError(f"the tracker {tracker} does not answer ({error}); restart it") from error
    except ValueError as error:
        raise DeviceError(f"the tracker {tracker} answers nonsense ({error}); use the tracker of TVM 0.27") from error
    if reply[0] != _SUCCESS:
        raise DeviceError(f"the tracker {tracker} answers {str(reply)[:80]}; use the tracker of TVM 0.27")
    return reply[1]


def _receive(connection: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. The socket's timeout bounds the whole of it."""
    timeout = connection.gettimeout()
    deadline = time.monotonic() + timeout if timeout is not None else None
    data = b""
    while len(data) < size:
        if deadline is not None:
            connection.settimeout(max(deadline - time.monotonic(), 1e-3))
        chunk = connection.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError("connection closed")
        data += chunk
    connection.settimeout(timeout)
    return data
