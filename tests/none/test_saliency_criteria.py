"""Each criterion against a reference of a few lines that knows the network, not the axes."""

import numpy as np
import pytest
import torch
from saliency_network import Batches, Residual, analysed, by_hand, drawn, labelled
from torch import nn
from torch.nn import functional as F

from billhook.ir.capture import capture
from billhook.ir.errors import DataError, OptionError
from billhook.ir.program import Program
from billhook.passes.infer import infer_axes
from billhook.passes.saliency import Data, Gradients, index_sums
from billhook.passes.saliency_criteria import CRITERIA, score_axes
from billhook.passes.saliency_gradients import collect_gradients
from billhook.passes.saliency_magnitude import Magnitude, l2
from billhook.passes.saliency_taylor import Taylor, taylor


@pytest.fixture(scope="module")
def network() -> Residual:
    return drawn()


@pytest.fixture(scope="module")
def program(network: Residual) -> Program:
    return analysed(network)


@pytest.fixture(scope="module")
def batches() -> Batches:
    return labelled(4, 4, 4)


def test_l2_is_the_norm_of_all_that_goes_with_the_index(network: Residual, program: Program) -> None:
    scores = l2(program, network)
    state = dict(network.named_parameters())
    for i in range(6):
        gone = [state["stem.weight"][i], state["conv2.weight"][i], state["conv1.weight"][:, i], state["fc1.weight"][:, 4 * i : 4 * i + 4]]
        gone += [state[f"{bn}.{part}"][i] for bn in ("bn", "bn2") for part in ("weight", "bias")]
        entries = torch.cat([g.reshape(-1) for g in gone]).detach().double()
        assert scores["stem.out"][i] == pytest.approx(float(entries.square().sum().sqrt()))
        assert Magnitude(mean=True)(program, network)["stem.out"][i] == pytest.approx(float(entries.square().mean().sqrt()))


def test_taylor_takes_the_norm_form_where_the_axis_has_norms(network: Residual, program: Program, batches: Batches) -> None:
    scores = taylor(program, network, collect_gradients(network, batches, F.cross_entropy))
    products = by_hand(network, batches)
    for axis, norms in {"stem.out": ("bn", "bn2"), "conv1.out": ("bn1",)}.items():
        changes = [sum(p[f"{bn}.weight"] + p[f"{bn}.bias"] for bn in norms) for p in products]
        expected = torch.stack([torch.as_tensor(c).abs() for c in changes]).mean(0)
        np.testing.assert_allclose(scores[axis], expected.numpy(), rtol=1e-5)


def test_taylor_takes_the_weight_form_elsewhere(network: Residual, program: Program, batches: Batches) -> None:
    scores = taylor(program, network, collect_gradients(network, batches, F.cross_entropy))
    changes = torch.stack([(p["fc1.weight"].sum(1) + p["fc1.bias"]).abs() for p in by_hand(network, batches)])
    np.testing.assert_allclose(scores["fc1.out"], changes.mean(0).numpy(), rtol=1e-5)


def test_the_weight_form_on_a_residual_axis_sums_over_its_producers(network: Residual, program: Program, batches: Batches) -> None:
    scores = Taylor(form="weight")(program, network, collect_gradients(network, batches, F.cross_entropy))
    changes = [(p["stem.weight"].sum((1, 2, 3)) + p["conv2.weight"].sum((1, 2, 3))).abs() for p in by_hand(network, batches)]
    np.testing.assert_allclose(scores["stem.out"], torch.stack(changes).mean(0).numpy(), rtol=1e-5)


def test_both_sides_of_a_relu_axis_agree_so_the_forms_share_a_unit(network: Residual, batches: Batches) -> None:
    """What the docstring claims: the producing and the reading side give the same number, index by index."""
    for products in by_hand(network, batches):
        made = products["fc1.weight"].sum(1) + products["fc1.bias"]
        np.testing.assert_allclose(made.numpy(), products["fc2.weight"].sum(0).numpy(), rtol=1e-3, atol=1e-7)
        scaled = products["bn1.weight"] + products["bn1.bias"]
        np.testing.assert_allclose(scaled.numpy(), products["conv2.weight"].sum((0, 2, 3)).numpy(), rtol=1e-3, atol=1e-7)


def test_taylor_predicts_the_change_of_the_loss(network: Residual, program: Program, batches: Batches) -> None:
    """Shrinking a channel's gamma and beta by a small share changes the loss by that share of the score."""
    batch = batches[:1]
    scores = taylor(program, network, collect_gradients(network, batch, F.cross_entropy))["conv1.out"]
    x, y = batch[0]
    for i in range(5):
        shrunk = {f"bn1.{part}": getattr(network.bn1, part).detach().clone() for part in ("weight", "bias")}
        for tensor in shrunk.values():
            tensor[i] *= 1 - 1e-3
        with torch.no_grad():
            change = F.cross_entropy(torch.func.functional_call(network.double(), _double(shrunk), x.double()), y)
            change -= F.cross_entropy(network(x.double()), y)
        network.float()
        assert abs(float(change)) / 1e-3 == pytest.approx(scores[i], rel=0.05, abs=1e-5)


def _double(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.double() for name, tensor in state.items()}


def test_positions_of_a_flattened_axis_are_gathered(program: Program) -> None:
    member = next(m for m in program.axis("stem.out").members if m.tensor == "fc1.weight")
    values = torch.arange(7 * 24, dtype=torch.float32).reshape(7, 24)
    np.testing.assert_allclose(index_sums(member, values), values.sum(0).reshape(6, 4).sum(1).double().numpy())


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(6, 4, bias=False), nn.Linear(4, 6, bias=False)
        self.up.weight = nn.Parameter(self.down.weight.detach().T.clone())
        self.again = nn.Linear(6, 4, bias=False)
        self.again.weight = self.down.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(torch.tanh(self.up(torch.tanh(self.down(x)))))


def test_a_tied_weight_counts_once() -> None:
    torch.default_generator.manual_seed(0)
    model = Tied().eval()
    program = infer_axes(capture(model, (torch.randn(1, 6),)))
    axis = next(a for a in program.axes if any(m.tensor == "up.weight" and m.dim == 0 for m in a.members))
    tied, own = model.down.weight.detach(), model.up.weight.detach()
    expected = torch.cat([tied, own.T]).square().sum(0).sqrt()
    np.testing.assert_allclose(l2(program, model)[axis.name], expected.double().numpy(), rtol=1e-6)


def test_no_gradients_are_refused(network: Residual, program: Program) -> None:
    with pytest.raises(DataError, match="no gradients"):
        taylor(program, network, ())


def test_scores_that_are_not_finite_are_refused(network: Residual, program: Program) -> None:
    bad: Gradients = {"bn1.weight": torch.tensor([0.0, 1.0, float("nan"), 0.0, 0.0])}
    with pytest.raises(DataError, match=r"axis conv1\.out: the score of index 2 is nan"):
        taylor(program, network, [bad])


def test_criteria_are_found_by_name(network: Residual, program: Program, batches: Batches) -> None:
    for name in CRITERIA:
        scores = score_axes(name, program, network, Data(batches, F.cross_entropy))
        assert {axis.name: (axis.size,) for axis in program.axes} == {axis: values.shape for axis, values in scores.items()}
        assert all(values.dtype == np.float64 and (values >= 0).all() for values in scores.values())
    with pytest.raises(OptionError, match=r"'fpgn'; did you mean fpgm.*l2"):
        score_axes("fpgn", program, network, None)
