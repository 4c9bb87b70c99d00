"""The command line: one line per failure, the right exit status, nothing half-written."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic_record import synthetic_record

from billhook.cli import jobs, main
from billhook.ir.errors import BundleError

Capture = pytest.CaptureFixture[str]


def failure(capsys: Capture, *arguments: str) -> str:
    """Run a command that must fail with status 2, and return its single line."""
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("error: ")
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["cmpile"], "Did you mean 'compile'"),
        (["compile"], "Missing argument 'MODEL'"),
        (["trace", "m:f"], "Missing option '--example'"),
        (["trace", "m:f", "--exmaple", "1"], "No such option: --exmaple"),
        (["trace", "m", "-e", "1x3"], "MODEL m: write package.module:attribute"),
        (["trace", "m:f", "-e", "1x3", "--graph", "net.png"], "--graph net.png: name a file that ends in .svg or .html"),
        (["trace", "m:f", "-e", "1,3"], "--example 1,3: .*did you mean 1x3"),
        (["trace", "billhook_test_absent:f", "-e", "1x3"], "no module 'billhook_test_absent'"),
        (["verify", "absent"], "BUNDLE absent: no such file or folder"),
        (["load", "absent", "m:f"], "DIR absent: no such file or folder"),
        (["report", "absent.json"], "RECORD absent.json: no such file or folder"),
    ],
)
def test_bad_input(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert_matches(failure(capsys, *arguments), message)
    assert list(tmp_path.iterdir()) == []


def assert_matches(text: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--latency", "12", "--latency 12: .*did you mean 12ms or 12%"),
        ("--latency", "-1ms", "--latency -1ms: write a share"),
        ("--data", "loader", "--data loader: write package.module:attribute"),
        ("--evaluate", "./e.py:f", "--evaluate .*did you mean e:f"),
        ("--out", "taken", "--out taken: is a file"),
        ("--memory", "2XB", "--memory 2XB: unknown unit 'xb'"),
        ("--memory", "3", "--memory 3: .*did you mean 3MB or 3%"),
        ("--weights", "2XB", "--weights 2XB: unknown unit 'xb'"),
        ("--objective", "latncy", "--objective latncy: no such objective; did you mean latency"),
        ("--objective", "latency", "--objective latency: .*add --retain"),
        ("--retain", "90%", "--retain 90%: with --objective importance"),
        ("--preset", "halpp", "no preset is called 'halpp'; did you mean halp"),
        ("--constraint", "divisable(*.out,8)", r"--constraint divisable\(.*did you mean divisible"),
    ],
)
def test_bad_compile_options(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").touch()
    options = {"--example": "1x3x8x8", "--data": "m:d", "--latency": "50%", "--out": "out"} | {option: value}
    assert_matches(failure(capsys, "compile", "m:f", *(word for pair in options.items() for word in pair)), message)
    assert [p.name for p in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return 3", "returned int, not a torch.nn.Module"),
        ("raise FileNotFoundError('weights.pt')", "calling it raised FileNotFoundError: weights.pt"),
    ],
)
def test_a_model_function_that_does_not_deliver(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    (tmp_path / "billhook_test_model.py").write_text(f"def build():\n    {body}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    sys.modules.pop("billhook_test_model", None)
    assert message in failure(capsys, "trace", "billhook_test_model:build", "-e", "1x3")


def raising(error: BaseException) -> Callable[..., None]:
    def job(*_: Any, **__: Any) -> None:
        raise error

    return job


def test_errors_of_the_library_are_one_line(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_verify", raising(BundleError("lib.so: checksum\n differs; build again")))
    assert failure(capsys, "verify", str(tmp_path)) == "error: lib.so: checksum differs; build again\n"


def test_errors_of_the_system_name_the_file(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_verify", raising(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/lib.so")))
    assert failure(capsys, "verify", str(tmp_path)) == "error: out/lib.so: No space left on device\n"


def test_a_traceback_on_demand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_verify", raising(BundleError("broken")))
    monkeypatch.setenv("BILLHOOK_TRACEBACK", "1")
    with pytest.raises(BundleError):
        main(["verify", str(tmp_path)])


def test_an_interrupt_says_that_measurements_are_kept(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_verify", raising(KeyboardInterrupt()))
    assert main(["verify", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "interrupted: measurements taken so far are kept; the same command goes on from them\n"


def test_an_interrupted_process_ends_with_130(tmp_path: Path) -> None:
    code = "import signal, sys, time; from billhook.cli import jobs, main; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "  # a shell's background jobs inherit that it is ignored
    code += "jobs.run_verify = lambda _: (print('begun', flush=True), time.sleep(60)); sys.exit(main(['verify', '.']))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.startswith("interrupted: ")
    assert err.count("\n") == 1


def test_report_into_a_place_that_cannot_be_written(capsys: Capture, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    record.write_text(json.dumps(synthetic_record()))
    assert str(record) in failure(capsys, "report", str(record), "-o", str(record / "page.html"))
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


def test_report_renders_a_record(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(json.dumps(synthetic_record()))
    assert main(["report", str(tmp_path / "record.json"), "-o", str(tmp_path / "page.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert "Budget met" in (tmp_path / "page.html").read_text()


def test_report_of_a_damaged_record(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text('{"budget_s": ')
    assert "not JSON" in failure(capsys, "report", str(tmp_path / "record.json"), "-o", str(tmp_path / "page.html"))
    assert not (tmp_path / "page.html").exists()


def test_version_and_help(capsys: Capture) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("billhook ")
    assert main([]) == 0
    assert "Usage: billhook" in capsys.readouterr().out


def test_as_a_process_with_a_reader_that_leaves() -> None:
    command = f"{sys.executable} -m billhook --help | head -c 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
