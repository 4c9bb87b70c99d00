"""A module's weights as one safetensors file, and their digest: no pickle, ties kept."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from .errors import OutputError, PlanError


def digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 (hex) of named tensors: names, element types, shapes and values, whatever their order."""
    total = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_weights(module: torch.nn.Module, path: Path) -> None:
    """Write parameters and buffers; of tied tensors the first is stored, the others are named in the file's metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    owners: dict[int, str] = {}
    for name, value in module.state_dict().items():
        storage = value.untyped_storage()
        owner = owners.setdefault(storage.data_ptr(), name) if value.numel() else name
        if owner != name and _same_view(value, tensors[owner]):
            aliases[name] = owner
        else:
            # What shares memory without being the same tensor is stored apart: safetensors refuses shared memory.
            apart = owner != name or storage.nbytes() != value.nbytes
            tensors[name] = value.detach().clone().contiguous() if apart else value.detach()
    stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    write: Any = safetensors.torch.save_file  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    try:
        write(stored, path, metadata=aliases or None)
        path.chmod(0o644)  # safetensors writes it for the owner only
    except SafetensorError as error:
        raise OutputError(f"{path}: cannot be written: {error}; free space or choose another folder") from error


def read_weights(path: Path, module: torch.nn.Module) -> None:
    """Load the weights into a module of exactly these tensors, in place.

    Raises:
        PlanError: the file is damaged, or the first tensor that is missing, left over or of another shape, by name.
    """
    read: Any = safetensors.safe_open
    try:
        with read(path, framework="pt") as file:
            stored: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            aliases: Mapping[str, str] = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise PlanError(f"{path}: cannot be read: {error}; copy or save the folder again") from error
    stored.update({name: stored[owner] for name, owner in aliases.items() if owner in stored})
    expected: Mapping[str, torch.Tensor] = module.state_dict()
    for name, tensor in expected.items():
        if name not in stored:
            raise PlanError(f"{path}: has no tensor {name}, which the model needs; build the model as it was when it was saved")
        if stored[name].shape != tensor.shape:
            shapes = f"{tuple(stored[name].shape)}, the model's is {tuple(tensor.shape)}"
            raise PlanError(f"{path}: the shape of {name} is {shapes}; build the model as it was when it was saved")
    left = sorted(set(stored) - set(expected))
    if left:
        raise PlanError(f"{path}: holds {left[0]}, which the model does not have; build the model as it was when it was saved")
    module.load_state_dict(stored)


def _same_view(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype)
