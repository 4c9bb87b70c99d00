"""A missing or wrong tool is one clear line, before anything crashes."""

from importlib import metadata

import pytest

from billhook.codegen import toolchain
from billhook.ir.errors import ToolchainError


def test_wrong_ffi_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"apache-tvm": "0.27.0.post1", "apache-tvm-ffi": "0.1.15.post2"}
    monkeypatch.setattr(metadata, "version", versions.__getitem__)
    with pytest.raises(ToolchainError, match=r"apache-tvm-ffi 0\.1\.15\.post2 does not work"):
        toolchain.check_toolchain()
    versions["apache-tvm-ffi"] = "0.1.14.post1"
    toolchain.check_toolchain()


def test_missing_tvm_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(ToolchainError, match="apache-tvm is not installed"):
        toolchain.check_toolchain()


def test_missing_compiler_is_named() -> None:
    with pytest.raises(ToolchainError, match="no C compiler found"):
        toolchain.find_compiler(path="/nonexistent")
