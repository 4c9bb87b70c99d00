"""A child process that answers JSON lines: what crashes or hangs in it takes nothing else along."""

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any


class Child:
    """`python -m MODULE OPTIONS`, which says {"ready": ...} and then answers each line with a line.

    start_seconds: how long it may take to get ready. Raises as `ask` does.
    """

    def __init__(self, module: str, options: dict[str, Any], start_seconds: float = 120.0) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", module, json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            _receive(self._process, start_seconds)
        except (EOFError, TimeoutError):
            self.end()
            raise

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """The answer. EOFError if the process ends instead, TimeoutError if it stays silent for `timeout` seconds."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError as error:
            _wait_for_status(self._process)
            raise EOFError from error
        return _receive(self._process, timeout)

    def end(self) -> int:
        """Kill the process; its exit status, which is its own where it ended by itself."""
        if self.alive:
            self._process.kill()
        status = self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # a request that the process did not live to read
                    stream.close()
        return status


def _receive(process: subprocess.Popen[bytes], timeout: float) -> dict[str, Any]:
    assert process.stdout is not None
    deadline, line = time.monotonic() + timeout, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(max(deadline - time.monotonic(), 0.0)):
                raise TimeoutError
            chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                _wait_for_status(process)
                raise EOFError
            line += chunk
    return json.loads(line)


def _wait_for_status(process: subprocess.Popen[bytes]) -> None:
    """Give a process that closed its output the time to end by itself, so that its exit status is its own."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(5)


def serve(begin: Callable[[dict[str, Any]], Callable[[dict[str, Any]], dict[str, Any]]]) -> None:
    """The child's side: `begin` makes, of the options, the function that answers requests. Serves until standard input closes.

    Whatever libraries print goes to standard error, so that replies stay clean.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer = begin(json.loads(sys.argv[1]))
    print(json.dumps({"ready": os.getpid()}), file=replies, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), file=replies, flush=True)
