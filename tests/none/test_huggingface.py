"""Checkpoints: the configuration that says a cut is found by trying, on a hand-written model of Hugging Face's form."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

import billhook as bh
from billhook import huggingface
from billhook.ir.errors import DataError, PlanError
from billhook.passes.prune import Pruned


@dataclass
class Config:
    """Two attention layers. mlp: None is twice the hidden size. heads and labels have one value, on purpose."""

    hidden: int = 8
    heads: int = 4
    mlp: int | None = None
    depths: list[int] = field(default_factory=lambda: [1, 1])
    labels: int = 4
    scaled: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Layer(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        if config.hidden % config.heads:
            raise ValueError("hidden is no multiple of heads")
        mlp = config.mlp or 2 * config.hidden
        self.heads, self.scale = config.heads, (config.hidden // config.heads) ** -0.5 if config.scaled else 1.0
        self.qkv, self.out = nn.Linear(config.hidden, 3 * config.hidden), nn.Linear(config.hidden, config.hidden)
        self.up, self.down = nn.Linear(config.hidden, mlp), nn.Linear(mlp, config.hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b, n, width = x.shape
        q, k, v = (t.view(b, n, self.heads, width // self.heads).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        x = x + self.out(y.transpose(1, 2).reshape(b, n, width))
        return x + self.down(F.gelu(self.up(x)))


class Model(nn.Module):
    """With the three things that a checkpoint needs: config, save_pretrained, from_pretrained."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.embed, self.head = nn.Linear(3, config.hidden), nn.Linear(config.hidden, config.labels)
        self.layers = nn.ModuleList(Layer(config) for depth in config.depths for _ in range(depth))

    @property
    def dtype(self) -> torch.dtype:
        return self.embed.weight.dtype

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(x)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(x.mean(1))}

    def save_pretrained(self, folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(self.config.to_dict()))
        save_file(self.state_dict(), folder / "model.safetensors")

    @classmethod
    def from_pretrained(cls, folder: Path, dtype: torch.dtype) -> "Model":
        model = cls(Config(**json.loads((Path(folder) / "config.json").read_text()))).to(dtype)
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
        return model


class Wrapper(nn.Module):
    def __init__(self, model: Model) -> None:
        super().__init__()
        self.inner = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)["logits"]


def cut(config: Config, sizes: dict[str, int], *, wrapped: bool = False) -> tuple[Pruned, bh.Program]:
    """A model whose axes that end in the given names ("qkv_0" for qkv.out.0, "up", "embed") keep their first indices."""
    torch.default_generator.manual_seed(0)
    model = Model(config).eval()
    program = bh.trace(Wrapper(model) if wrapped else model, torch.randn(2, 5, 3))
    ends = {f"{name.replace('_', '.out.') if '_' in name else name + '.out'}": size for name, size in sizes.items()}
    kept = {a.name: range(size) for a in program.axes for end, size in ends.items() if a.name.endswith(end)}
    return bh.prune(program, kept), program


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("config", "sizes", "said"),
    [
        (Config(), {"up": 5}, {"mlp": 5}),
        (Config(mlp=16), {"up": 5}, {"mlp": 5}),
        (Config(), {"up": 8, "embed": 4, "qkv_0": 2}, {"hidden": 4, "heads": 2}),
        (Config(), {"up": 5, "embed": 6, "qkv_0": 3}, {"hidden": 6, "heads": 3, "mlp": 5}),
        (Config(scaled=True), {"up": 5, "embed": 6, "qkv_0": 3}, {"hidden": 6, "heads": 3, "mlp": 5}),
        (Config(), {"embed": 4, "qkv_1": 1, "qkv_2": 1}, {"hidden": 4, "mlp": 16}),
    ],
)
def test_the_configuration_is_found(config: Config, sizes: dict[str, int], said: dict[str, int], wrapped: bool, tmp_path: Path) -> None:
    pruned, program = cut(config, sizes, wrapped=wrapped)
    assert huggingface.save(pruned, program, tmp_path / "out") == said
    loaded = Model.from_pretrained(tmp_path / "out", torch.float32).eval()
    x = program.example[0][0]
    found = pruned.model(x)
    assert torch.allclose(loaded(x)["logits"], found if wrapped else found["logits"], atol=1e-6)
    assert loaded.config.to_dict() == {**config.to_dict(), **said}


def test_trained_weights_are_saved_and_the_model_keeps_its_mode(tmp_path: Path) -> None:
    pruned, program = cut(Config(), {"up": 5})
    pruned.model.train()
    with torch.no_grad():
        for parameter in pruned.model.parameters():
            parameter.mul_(1.5)
    huggingface.save(pruned, program, tmp_path / "out")
    assert pruned.model.training
    loaded = Model.from_pretrained(tmp_path / "out", torch.float32)
    assert torch.equal(loaded.get_parameter("layers.0.up.weight"), pruned.model.get_parameter("layers.0.up.weight"))


@pytest.mark.parametrize(
    ("config", "sizes", "message"),
    [
        (Config(), {"qkv_0": 2}, r"no Config .* tensors differ, such as layers.0.qkv.weight is 12x8, not 24x8; give all layers one width"),
        (Config(scaled=True), {"embed": 4, "qkv_1": 1, "qkv_2": 1}, "its outputs differ .* attention scale"),
        (Config(), {"embed": 6, "qkv_1": 1}, "no Config"),
    ],
)
def test_what_a_configuration_cannot_say(config: Config, sizes: dict[str, int], message: str, tmp_path: Path) -> None:
    pruned, program = cut(config, sizes)
    with pytest.raises(PlanError, match=message):
        huggingface.save(pruned, program, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_layers_of_different_width_are_refused(tmp_path: Path) -> None:
    program = cut(Config(), {})[1]
    pruned = bh.prune(program, {"layers.0.up.out": range(5)})
    with pytest.raises(PlanError, match=r"with its present values, 3 tensors differ, such as layers.0.up.weight is 5x8, not 16x8"):
        huggingface.save(pruned, program, tmp_path / "out")


def test_other_models_are_refused(tmp_path: Path) -> None:
    program = bh.trace(nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), torch.randn(2, 3))
    with pytest.raises(DataError, match="Sequential has no transformers"):
        huggingface.save(bh.prune(program, {"0.out": [0]}), program, tmp_path / "out")
