"""Devices by name, their file, and the tracker's protocol with timeouts, against a tracker that the test scripts."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from billhook import devices
from billhook.cli import main
from billhook.codegen.arm import toolchain
from billhook.codegen.device import Address, Device, Facts, identity, parse_address
from billhook.codegen.tracker import Grant, registered, request
from billhook.devices import devices_file, find_device, make_device, own_target, read_devices, write_devices
from billhook.ir.errors import DeviceError, OptionError, ToolchainError

MAGIC = struct.pack("<i", 0x2F271)
PI = Device("pi", Address("10.0.0.7", 9190), "rpi5", timeout=30)
Capture = pytest.CaptureFixture[str]


def message(value: Any) -> bytes:
    data = json.dumps(value).encode()
    return struct.pack("<i", len(data)) + data


def summary(*keys: str) -> bytes:
    return message([0, {"queue_info": {}, "server_info": [{"key": f"server:{k}", "addr": ["h", 1]} for k in keys]}])


@contextmanager
def tracker(answer: Callable[[Any], bytes | None], magic: bytes = MAGIC) -> Generator[Address]:
    """Listens on this machine; `answer` maps a request to the bytes that are sent back, None to silence."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    done = threading.Event()

    def serve(connection: socket.socket) -> None:
        with connection:
            connection.settimeout(10)
            try:
                connection.recv(4)
                connection.sendall(magic)
                while header := connection.recv(4):
                    (size,) = struct.unpack("<i", header)
                    if (reply := answer(json.loads(connection.recv(size)))) is not None:
                        connection.sendall(reply)
            except OSError:
                return

    def accept() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield Address(*listener.getsockname())
    finally:
        done.set()
        thread.join()
        listener.close()


def test_servers_are_counted_by_key() -> None:
    with tracker(lambda _: summary("rpi5", "rpi5", "other", "rpi5x")) as address:
        assert registered(address, "rpi5") == 2
        assert registered(address, "absent") == 0


def test_a_server_is_granted_at_once_or_after_waiting() -> None:
    asked: list[Any] = []

    def answer(query: Any) -> bytes | None:
        asked.append(query)
        if query[0] == 6:
            return summary("rpi5")
        time.sleep(1.5)  # busy at first; meanwhile the client looks whether there still is a server
        return message([0, ["10.0.0.9", 9091, "rpi5:0.5"]])

    with tracker(answer) as address:
        assert request(address, "rpi5", 5, patience=60) == Grant("10.0.0.9", 9091, "rpi5:0.5")
    assert [q[0] for q in asked][:2] == [4, 6]
    assert asked[0] == [4, "rpi5", "", 1]


def test_without_a_server_the_error_says_how_to_start_one() -> None:
    expected = r"no server is registered as 'rpi5'.*rpc_server --tracker"
    with tracker(lambda q: summary("other") if q[0] == 6 else None) as address, pytest.raises(DeviceError, match=expected):
        request(address, "rpi5", 5, patience=60)


def test_servers_that_stay_busy_are_told_from_servers_that_are_not_there() -> None:
    expected = r"the 2 servers 'rpi5' .* were busy for 0.1 s"
    with tracker(lambda q: summary("rpi5", "rpi5") if q[0] == 6 else None) as address, pytest.raises(DeviceError, match=expected):
        request(address, "rpi5", 5, patience=0.1)


def test_a_server_that_comes_back_within_the_grace_is_waited_for() -> None:
    looks: list[None] = []

    def answer(query: Any) -> bytes | None:
        if query[0] == 4:
            return None
        looks.append(None)
        return summary() if len(looks) < 2 else summary("rpi5")

    with tracker(answer) as address, pytest.raises(DeviceError, match=r"the 1 servers 'rpi5' .* were busy"):
        request(address, "rpi5", 5, patience=2.5, grace=30)
    assert len(looks) >= 2


@pytest.mark.parametrize(
    ("answer", "magic", "expected"),
    [
        (lambda _: None, b"HTTP", "is no TVM tracker"),
        (lambda _: None, b"", "is no TVM tracker"),
        (lambda _: None, MAGIC, "does not answer"),
        (lambda _: struct.pack("<i", -5), MAGIC, "use the tracker of TVM"),
        (lambda _: struct.pack("<i", 1 << 30), MAGIC, "use the tracker of TVM"),
        (lambda _: struct.pack("<i", 4) + b"{{{{", MAGIC, "answers nonsense"),
        (lambda _: message([-1, {}]), MAGIC, "use the tracker of TVM"),
    ],
    ids=["other protocol", "silent greeting", "silent", "negative size", "huge size", "no JSON", "refusal"],
)
def test_what_is_no_tracker_is_one_clear_line(answer: Callable[[Any], bytes | None], magic: bytes, expected: str) -> None:
    with tracker(answer, magic) as address, pytest.raises(DeviceError, match=expected) as caught:
        registered(address, "rpi5", timeout=0.3)
    assert "\n" not in str(caught.value)
    assert str(address) in str(caught.value)


@pytest.mark.parametrize("address", [Address("127.0.0.1", 1), Address("no.such.host.invalid", 9190), Address("x" * 300, 9190)])
def test_a_tracker_that_is_not_there_is_one_clear_line(address: Address) -> None:
    with pytest.raises(DeviceError, match=r"no tracker answers at .*rpc_tracker --host") as caught:
        registered(address, "rpi5", timeout=2)
    assert "\n" not in str(caught.value)


def test_addresses_round_trip_and_bad_ones_are_refused() -> None:
    for text in ("10.0.0.7:9190", "board.local:1", "[::1]:9190", "[fe80::1%eth0]:9"):
        assert str(parse_address(text)) == text
    for text in ("", "host", "host:", ":9190", "host:0", "host:65536", "host:9190x", "::1:9190", "a b:1", "[host:1"):
        with pytest.raises(OptionError, match="write host:port"):
            parse_address(text)


def test_the_file_round_trips(tmp_path: Path) -> None:
    path = devices_file(tmp_path / "m.sqlite")
    assert read_devices(path) == {}
    known = {d.name: d for d in (PI, make_device("x86", "[::1]:9190", "ryzen", "llvm", 1.5))}
    write_devices(path, known)
    assert read_devices(path) == known
    assert find_device(tmp_path / "m.sqlite", "pi") == PI
    with pytest.raises(OptionError, match="did you mean x86"):
        find_device(tmp_path / "m.sqlite", "x68")
    with pytest.raises(OptionError, match="billhook device add board"):
        find_device(tmp_path / "m.sqlite", "board")


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"pi": 3}',
        '{"pi": {"tracker": "h:1", "key": "k", "target": "llvm"}}',
        '{"pi": {"tracker": "h:1", "key": "k", "target": "llvm", "timeout": 5, "more": 1}}',
        '{"pi": {"tracker": "h", "key": "k", "target": "llvm", "timeout": 5}}',
        '{"pi": {"tracker": "h:1", "key": "k", "target": "llvm", "timeout": "long"}}',
        '{"pi": {"tracker": "h:1", "key": "k", "target": "llvm", "timeout": null}}',
        '{"p i": {"tracker": "h:1", "key": "k", "target": "llvm", "timeout": 5}}',
    ],
)
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "devices.json").write_text(text)
    with pytest.raises(OptionError, match=r"devices\.json") as caught:
        read_devices(tmp_path / "devices.json")
    assert "\n" not in str(caught.value)


CPUINFO = (
    "processor\t: 0\nmodel name\t: EPYC\ncpu family\t: 25\nmodel\t\t: 17\nstepping\t: 1\ncpu MHz\t\t: 2596.1\nflags\t\t: fma avx2 avx512f\n"
)


def test_identity_tells_models_apart_but_not_moments() -> None:
    assert identity(CPUINFO) == identity(CPUINFO.replace("2596.1", "3700.0").replace("processor\t: 0", "processor\t: 7"))
    assert identity(CPUINFO) != identity(CPUINFO.replace("17", "97"))
    assert identity("") == ()


def test_a_device_s_own_target_is_made_of_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    found = own_target(PI, Facts(CPUINFO, "znver4", "x86_64-conda-linux-gnu"), threads=2)
    assert (found.mcpu, found.lanes, found.fine_lanes, found.threads) == ("znver4", 16, 8, 2)
    assert devices.device_processor(PI, Facts(CPUINFO, "znver4", "x86_64-linux")) == "EPYC 25/17/1, device rpi5"
    with pytest.raises(DeviceError, match="runs riscv64 code"):
        own_target(PI, Facts(CPUINFO, "sifive-u74", "riscv64-linux-gnu"), threads=1)
    monkeypatch.setattr(toolchain.shutil, "which", lambda name: f"/usr/bin/{name}")
    board = own_target(PI, Facts("", "cortex-a76", "aarch64-linux-gnu"), threads=1)
    assert (board.mcpu, board.lanes, board.triple) == ("cortex-a76", 4, "aarch64-linux-gnu")
    monkeypatch.setattr(toolchain.shutil, "which", lambda _: None)
    with pytest.raises(ToolchainError, match="g\\+\\+-aarch64-linux-gnu"):
        own_target(PI, Facts("", "cortex-a76", "aarch64-linux-gnu"), threads=1)
    with pytest.raises(DeviceError, match="install the full TVM"):
        own_target(PI, Facts(CPUINFO, "", ""), threads=1)


def run(capsys: Capture, *arguments: object) -> str:
    assert main(["device", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def refused(capsys: Capture, *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_add_list_and_remove(capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    db = ("--db", tmp_path / "m.sqlite")
    assert "no devices" in run(capsys, "list", *db)
    with tracker(lambda _: summary("rpi5", "rpi5", "rpi5")) as address:
        run(capsys, "add", "pi", "--tracker", address, "--key", "rpi5", *db)
        run(capsys, "add", "gone", "--tracker", "127.0.0.1:1", "--key", "k", "--timeout", "5", *db)
        rows = run(capsys, "list", *db).splitlines()
    assert rows[1].startswith("gone")
    assert "no tracker" in rows[1]
    assert rows[2].split() == ["pi", str(address), "rpi5", "llvm", "60", "s", "3"]
    run(capsys, "remove", "pi", *db)
    assert list(read_devices(tmp_path / "devices.json")) == ["gone"]


def test_bad_input_is_one_line(capsys: Capture, tmp_path: Path) -> None:
    db = ("--db", tmp_path / "m.sqlite")
    add = ("device", "add", "pi", "--tracker", "h:1", "--key", "k", *db)
    assert "not within" in refused(capsys, *add, "--timeout", "0")
    assert "write host:port" in refused(capsys, *add, "--tracker", "h")
    assert "spaces or colons" in refused(capsys, *add, "--key", "a:b")
    assert "the target is empty" in refused(capsys, *add, "--target", "")
    assert "a name is letters" in refused(capsys, "device", "add", "p i", "--tracker", "h:1", "--key", "k", *db)
    assert "not known" in refused(capsys, "device", "remove", "pi", *db)
    assert "not known" in refused(capsys, "device", "check", "pi", *db)
    assert list(tmp_path.iterdir()) == []
    run(capsys, "add", "pi", "--tracker", "127.0.0.1:1", "--key", "k", *db)
    assert "no tracker answers at 127.0.0.1:1" in refused(capsys, "device", "check", "pi", *db)
