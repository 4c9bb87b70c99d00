"""A network and data small enough that a whole compilation takes seconds."""

import torch
from torch import nn
from torch.nn import functional as F


class TinyResNet(nn.Module):
    """Stem, one residual block, classifier; x: [N, 1, 8, 16]."""

    def __init__(self, width: int = 32, inner: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.stem(x)))
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.head(x.mean((2, 3)))


def tiny(seed: int = 0) -> TinyResNet:
    """The network with seeded weights and statistics that are not those of a fresh batch norm."""
    generator = torch.Generator().manual_seed(seed)
    model = TinyResNet().eval()
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if tensor.is_floating_point():
                low = 0.5 if tensor.dim() <= 1 or "var" in name else -1.0
                scale = 1.0 if tensor.dim() <= 1 else (2.0 / tensor[0].numel()) ** 0.5
                tensor.copy_((low + (1.5 - low) * torch.rand(tensor.shape, generator=generator)) * scale)
    return model


def example(seed: int = 1) -> torch.Tensor:
    """One input, [1, 1, 8, 16]."""
    return torch.randn(1, 1, 8, 16, generator=torch.Generator().manual_seed(seed))


def batches(count: int = 3, size: int = 8) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches (inputs, labels) of noise."""
    generator = torch.Generator().manual_seed(2)
    return [(torch.randn(size, 1, 8, 16, generator=generator), torch.randint(0, 4, (size,), generator=generator)) for _ in range(count)]
