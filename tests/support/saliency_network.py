"""The network of the saliency tests: small enough that a reference knows where each axis is."""

import torch
from torch import nn
from torch.nn import functional as F

from billhook.ir.capture import capture
from billhook.ir.program import Program
from billhook.passes.infer import infer_axes

Batches = list[tuple[torch.Tensor, torch.Tensor]]


class Residual(nn.Module):
    """Two coupled BN layers on the axis `stem.out`, one inner axis with BN, a linear axis without."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(2, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.conv2, self.bn2 = nn.Conv2d(5, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.fc1, self.fc2 = nn.Linear(6 * 4, 7), nn.Linear(7, 3)

    def inner(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.bn1(self.conv1(F.relu(self.bn(self.stem(x))))))

    def hidden(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(F.relu(self.bn(self.stem(x))) + self.bn2(self.conv2(self.inner(x))))
        return F.relu(self.fc1(F.avg_pool2d(y, 2).flatten(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.hidden(x))


def drawn() -> Residual:
    """The network with weights that are always the same."""
    torch.default_generator.manual_seed(0)
    model = Residual()
    for tensor in model.parameters():
        nn.init.normal_(tensor, 0.1, 0.5)
    return model.eval()


def analysed(network: Residual) -> Program:
    return infer_axes(capture(network, (torch.randn(1, 2, 4, 4),)))


def labelled(*sizes: int) -> Batches:
    """Batches of these sizes, always the same."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(n, 2, 4, 4, generator=generator), torch.randint(3, (n,), generator=generator)) for n in sizes]


def by_hand(network: Residual, batches: Batches) -> list[dict[str, torch.Tensor]]:
    """Parameter * gradient of every batch, by plain backward passes."""
    products: list[dict[str, torch.Tensor]] = []
    for x, y in batches:
        network.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(x), y))
        products.append({name: (p * p.grad).detach().double() for name, p in network.named_parameters() if p.grad is not None})
    network.zero_grad()
    return products
