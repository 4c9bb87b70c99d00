"""Progress in a log and on a terminal."""

import io
import re

from billhook import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(stream: io.StringIO) -> str:
    with progress.shown(stream) as report:
        for done in range(4):
            report("measure kernels", done, 3)
        report("search", 5, 0)
        report("search", 9, 9)
    return stream.getvalue()


def test_a_log_gets_one_line_per_stage() -> None:
    lines = drive(io.StringIO()).splitlines()
    assert [re.sub(r"[\d.]+ s$", "T s", line) for line in lines] == ["measure kernels: 3/3 in T s", "search: 9/9 in T s"]


def test_a_terminal_gets_bars() -> None:
    text = drive(Terminal())
    assert "measure kernels" in text
    assert "3/3" in text
    assert "9/9" in text


def test_silence() -> None:
    progress.silent("anything", 1, 2)
