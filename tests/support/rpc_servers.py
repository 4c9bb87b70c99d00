"""A tracker and servers of TVM's RPC on this machine, as child processes that a test may kill."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

from billhook.codegen.device import Address
from billhook.codegen.tracker import registered
from billhook.ir.errors import DeviceError

_SECONDS = 240.0  # to start: importing TVM may take a minute on a machine that has other work


class Processes:
    """A tracker, and servers registered with it. Every process leads a group of its own, which dies with it."""

    def __init__(self) -> None:
        self.tracker = Address("127.0.0.1", free_port())
        self._processes: list[subprocess.Popen[bytes]] = []

    def begin(self) -> None:
        """Start the tracker and wait until it answers."""
        port = self.tracker.port
        self._start("tvm.exec.rpc_tracker", "--host", "127.0.0.1", "--port", str(port), "--port-end", str(port + 1), "--silent")
        self._wait("", 0)

    def serve(self, key: str, count: int = 1) -> list[subprocess.Popen[bytes]]:
        """Start servers and wait until they are registered."""
        before = registered(self.tracker, key)
        ports = [free_port() for _ in range(count)]
        begun = [
            self._start("tvm.exec.rpc_server", "--host", "127.0.0.1", "--port", str(p), "--port-end", str(p + 1),
                        "--tracker", str(self.tracker), "--key", key, "--silent")
            for p in ports
        ]  # fmt: skip
        self._wait(key, before + count)
        return begun

    def serve_program(self, command: list[str], key: str) -> subprocess.Popen[bytes]:
        """Start another server's program and wait until it is registered."""
        before = registered(self.tracker, key)
        process = self._run(command)
        self._wait(key, before + 1)
        return process

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """As a power cut would."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def close(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                self.kill(process)

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[bytes]:
        return self._run([sys.executable, "-m", module, *arguments])

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=_die_with_parent
        )
        self._processes.append(process)
        return process

    def _wait(self, key: str, count: int) -> None:
        deadline = time.monotonic() + _SECONDS
        while True:
            try:
                if registered(self.tracker, key) >= count:
                    return
            except DeviceError:
                pass
            assert time.monotonic() < deadline, "the servers do not start"
            time.sleep(0.1)


def _die_with_parent() -> None:
    """So that a test run that is killed leaves no servers behind (Linux: prctl with PR_SET_PDEATHSIG, which is 1)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


@contextmanager
def processes() -> Generator[Processes]:
    """A tracker without servers, gone afterwards."""
    running = Processes()
    try:
        running.begin()
        yield running
    finally:
        running.close()


def free_port() -> int:
    """A port on which nobody listens at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
