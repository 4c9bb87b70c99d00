"""The command line: `billhook --help`. Every failure is one line on standard error and a non-zero exit status.

Exit status: 0 the work is done and the re-measured latency meets the budget; 1 it does not, or a check failed;
2 bad input; 130 interrupted. BILLHOOK_TRACEBACK=1 in the environment shows where an error was raised.
"""

import os
import sys
from collections.abc import Sequence

import typer

from billhook.ir.errors import BillhookError

from .app import app

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. `arguments`: by default those of the process."""
    try:
        status = app(args=arguments, prog_name="billhook", standalone_mode=False)
    except KeyboardInterrupt:
        status = INTERRUPTED
    except (BillhookError, typer.TyperException, OSError) as error:
        if os.environ.get("BILLHOOK_TRACEBACK"):
            raise
        return _fail(error)
    if status == INTERRUPTED:
        _say("interrupted: measurements taken so far are kept; the same command goes on from them")
    return int(status or 0)


def _fail(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        # The reader of our output left: nothing to say, and nothing left to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, typer.TyperException):
        _say(f"error: {error.format_message()} (billhook --help lists commands and options)")
    elif isinstance(error, OSError):
        _say(f"error: {error.filename or 'output'}: {error.strerror or error}")
    else:
        _say(f"error: {error}")
    return 2


def _say(text: str) -> None:
    sys.stderr.write(" ".join(text.split()) + "\n")
