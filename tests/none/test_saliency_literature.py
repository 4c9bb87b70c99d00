"""The literature's criteria, each against a reference of a few lines that knows the network, not the axes."""

from typing import Any

import numpy as np
import pytest
import torch
from saliency_network import Batches, Residual, analysed, by_hand, drawn, labelled
from small_networks import images
from small_networks import program as zoo_program
from torch import nn
from torch.nn import functional as F

from billhook.ir.capture import capture
from billhook.ir.errors import DataError, OptionError
from billhook.ir.program import Program
from billhook.passes.infer import infer_axes
from billhook.passes.saliency import Data
from billhook.passes.saliency_criteria import CRITERIA, score_axes
from billhook.passes.saliency_hessian import Curvature
from billhook.passes.saliency_lasso import entries


@pytest.fixture(scope="module")
def network() -> Residual:
    return drawn()


@pytest.fixture(scope="module")
def program(network: Residual) -> Program:
    return analysed(network)


@pytest.fixture(scope="module")
def batches() -> Batches:
    return labelled(4, 4, 2)


def with_index(network: Residual, i: int) -> list[torch.Tensor]:
    """Everything that goes with channel i of conv1."""
    return [network.conv1.weight[i], network.bn1.weight[i], network.bn1.bias[i], network.conv2.weight[:, i]]


def scored(name: str, program: Program, network: Residual, batches: Batches) -> Any:
    return score_axes(name, program, network, Data(batches, F.cross_entropy))


def test_l1_is_the_sum_of_all_magnitudes(network: Residual, program: Program) -> None:
    expected = [sum(float(t.detach().double().abs().sum()) for t in with_index(network, i)) for i in range(5)]
    np.testing.assert_allclose(score_axes("l1", program, network, None)["conv1.out"], expected, rtol=1e-6)


def test_bn_scale_adds_the_gammas_of_coupled_norms(network: Residual, program: Program) -> None:
    scores = score_axes("bn-scale", program, network, None)
    np.testing.assert_allclose(scores["stem.out"], (network.bn.weight.abs() + network.bn2.weight.abs()).detach().double(), rtol=1e-6)
    gammas = torch.cat([b.weight.detach().abs() for b in (network.bn, network.bn1, network.bn2)])
    np.testing.assert_allclose(scores["fc1.out"], np.full(7, float(gammas.double().mean())), rtol=1e-6)  # not ranked: neutral


def test_fpgm_is_the_distance_to_all_other_filters(network: Residual, program: Program) -> None:
    scores = score_axes("fpgm", program, network, None)
    filters = network.conv1.weight.detach().double().flatten(1)
    np.testing.assert_allclose(scores["conv1.out"], torch.cdist(filters, filters).sum(1), rtol=1e-8)
    both = torch.cat([network.stem.weight.detach().flatten(1), network.conv2.weight.detach().flatten(1)], 1).double()
    np.testing.assert_allclose(scores["stem.out"], torch.cdist(both, both).sum(1), rtol=1e-8)


def test_a_filter_amid_the_others_is_the_most_replaceable() -> None:
    """What L2 gets wrong by intent: the filter in the middle has a large norm, and is still the one to go."""
    model = nn.Sequential(nn.Linear(2, 3, bias=False), nn.ReLU(), nn.Linear(3, 2))
    model[0].weight.data = torch.tensor([[9.0, 10.0], [10.0, 10.0], [11.0, 10.0]])
    program = infer_axes(capture(model, (torch.randn(1, 2),)))
    scores = score_axes("fpgm", program, model, None)["0.out"]
    assert scores.argmin() == 1
    np.testing.assert_allclose(scores, [3.0, 2.0, 3.0])


def test_lamp_divides_by_all_that_is_not_smaller(network: Residual, program: Program) -> None:
    squares = np.array([sum(float(t.detach().double().square().sum()) for t in with_index(network, i)) for i in range(5)])
    expected = [s / sum(t for t in squares if t >= s) for s in squares]
    scores = score_axes("lamp", program, network, None)["conv1.out"]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)
    assert scores.max() == pytest.approx(1.0)


def test_dimap_is_the_share_of_the_modules_energy(network: Residual, program: Program) -> None:
    total = sum(float(p.detach().double().square().sum()) for p in network.parameters() if p.dim() > 1)  # one module: the network
    expected = [
        float((network.conv1.weight[i].square().sum() + network.conv2.weight[:, i].square().sum()).detach()) / total for i in range(5)
    ]
    np.testing.assert_allclose(score_axes("dimap", program, network, None)["conv1.out"], expected, rtol=1e-5)


def test_dimap_compares_within_a_module() -> None:
    """Scaling one of two blocks leaves the shares of its axes as they were; a magnitude would not."""
    torch.default_generator.manual_seed(0)
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4)) for _ in range(2)])
    program = infer_axes(capture(blocks, (torch.randn(1, 4),)))
    before = score_axes("dimap", program, blocks, None)
    with torch.no_grad():
        for parameter in blocks[0].parameters():
            parameter.mul_(10)
    after = score_axes("dimap", program, blocks, None)
    for axis in ("0.0.out", "1.0.out"):
        np.testing.assert_allclose(before[axis], after[axis], rtol=1e-6)
        assert before[axis].sum() > 0


def test_random_is_repeatable_and_differs_between_axes(network: Residual, program: Program) -> None:
    first, second = (score_axes("random", program, network, None) for _ in range(2))
    np.testing.assert_array_equal(first["conv1.out"], second["conv1.out"])
    assert not np.array_equal(first["stem.out"][:5], first["conv1.out"])


def test_fisher_squares_the_mean_over_the_layers_that_make_the_axis(network: Residual, program: Program, batches: Batches) -> None:
    expected = torch.stack(
        [((p["stem.weight"].sum((1, 2, 3)) + p["conv2.weight"].sum((1, 2, 3))) / 2) ** 2 for p in by_hand(network, batches)]
    )
    np.testing.assert_allclose(scored("fisher", program, network, batches)["stem.out"], expected.mean(0), rtol=1e-4)


def test_smcp_sums_over_the_readers(network: Residual, program: Program, batches: Batches) -> None:
    expected = torch.stack(
        [(p["conv1.weight"].sum((0, 2, 3)) + p["fc1.weight"].sum(0).reshape(6, 4).sum(1)).abs() for p in by_hand(network, batches)]
    )
    np.testing.assert_allclose(scored("smcp", program, network, batches)["stem.out"], expected.mean(0), rtol=1e-4)


def test_hesso_is_the_mean_of_five_views(network: Residual, program: Program, batches: Batches) -> None:
    named = dict(network.named_parameters())
    gradients = {n: torch.zeros_like(p) for n, p in named.items()}
    for x, y in batches:
        network.zero_grad()
        torch.autograd.backward(F.cross_entropy(network(x), y))
        for n, p in named.items():
            assert p.grad is not None
            gradients[n] += p.grad / len(batches)
    network.zero_grad()
    makes = {"conv1.out": ["conv1.weight", "bn1.weight", "bn1.bias"], "fc1.out": ["fc1.weight", "fc1.bias"]}
    makes["stem.out"] = ["stem.weight", "conv2.weight", "bn.weight", "bn.bias", "bn2.weight", "bn2.bias"]

    def vector(tensors: dict[str, Any], axis: str, i: int) -> torch.Tensor:
        inputs = {
            "conv1.out": lambda: [tensors["conv2.weight"][:, i]],
            "fc1.out": lambda: [tensors["fc2.weight"][:, i]],
            "stem.out": lambda: [tensors["conv1.weight"][:, i], tensors["fc1.weight"][:, 4 * i : 4 * i + 4]],
        }
        return torch.cat([t.detach().reshape(-1) for t in [tensors[n][i] for n in makes[axis]] + inputs[axis]()]).double()

    sizes = {"conv1.out": 5, "fc1.out": 7, "stem.out": 6}
    groups = {axis: [(vector(named, axis, i), vector(gradients, axis, i)) for i in range(n)] for axis, n in sizes.items()}
    views: dict[str, list[list[float]]] = {}
    for axis, pairs in groups.items():
        views[axis] = [
            [float(v) for v in (x.norm(), x.norm() / len(x) ** 0.5, F.cosine_similarity(x, g, 0) + 1, (x @ g).abs(), (x @ g) ** 2 / 2)]
            for x, g in pairs
        ]
    totals = np.sum([np.sum(v, axis=0) for v in views.values()], axis=0)
    scores = scored("hesso", program, network, batches)
    for axis, found in views.items():
        np.testing.assert_allclose(scores[axis], (np.array(found) / totals).mean(1), rtol=1e-3)


def test_hap_finds_the_trace_of_the_hessian() -> None:
    """Against the exact Hessian of a network small enough to spell it out; smooth, so that the trace is of one sign."""
    torch.default_generator.manual_seed(3)
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Softplus(), nn.Linear(4, 2)).double()
    program = infer_axes(capture(model.float(), (torch.randn(1, 3),)))
    model.double()
    x, y = torch.randn(16, 3, dtype=torch.float64), torch.randint(2, (16,))
    rest = {n: p.detach() for n, p in model.named_parameters()}

    def loss(weight: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(torch.func.functional_call(model, {**rest, "0.weight": weight}, x), y)

    hessian = torch.autograd.functional.hessian(loss, rest["0.weight"])
    trace = torch.stack([torch.stack([hessian[i, j, i, j] for j in range(3)]).sum() for i in range(4)])
    expected = trace.clamp_min(0) / 3 * rest["0.weight"].square().sum(1) / 2
    found = Curvature(draws=400).score(program, model, Data([(x, y)], F.cross_entropy))["0.out"]
    np.testing.assert_allclose(found, expected, rtol=0.25, atol=float(expected.max()) * 0.05)


def test_hap_passes_through_attention() -> None:
    """Fused attention has no second derivative: the plain form has to be taken."""
    program = zoo_program("vit")
    assert program.model is not None
    scores = score_axes("hap", program, program.model, Data([(images("vit", 2), torch.tensor([1, 2]))], F.cross_entropy))
    assert all(np.isfinite(s).all() and (s >= 0).all() for s in scores.values())
    assert max(float(s.max()) for s in scores.values()) > 0


def test_activation_is_the_mean_magnitude_behind_the_nonlinearity(network: Residual, program: Program, batches: Batches) -> None:
    x = torch.cat([b[0] for b in batches])  # batches of different sizes count by their samples
    scores = scored("activation", program, network, batches)
    with torch.no_grad():
        np.testing.assert_allclose(scores["conv1.out"], network.inner(x).double().abs().mean((0, 2, 3)), rtol=1e-5)
        np.testing.assert_allclose(scores["fc1.out"], network.hidden(x).double().abs().mean(0), rtol=1e-5)


def test_lasso_enters_where_scikit_learn_says(network: Residual, program: Program, batches: Batches) -> None:
    """conv2 reads conv1.out: the contributions of its channels spelled out, and scikit-learn's LARS path over them."""
    linear_model = pytest.importorskip("sklearn.linear_model", reason="the reference is scikit-learn's")
    with torch.no_grad():
        inner = network.inner(torch.cat([b[0] for b in batches])).double()
        weight = network.conv2.weight.double()
        parts = [F.conv2d(inner[:, i : i + 1], weight[:, i : i + 1], padding=1).flatten() for i in range(5)]
    z = torch.stack(parts, 1).numpy()
    energy = float(z.sum(1) @ z.sum(1))
    alphas, _, path = linear_model.lars_path(z, z.sum(1), method="lasso")
    entered = np.array([alphas[max(int(np.flatnonzero(path[i])[0]) - 1, 0)] if path[i].any() else 0.0 for i in range(5)]) * len(z) / energy
    found = scored("lasso", program, network, batches)["conv1.out"]
    step = 10 ** (4 / 59)
    strong = entered > entered.max() * 1e-3
    assert strong.sum() >= 4
    assert ((found[strong] <= entered[strong] * step**0.5) & (found[strong] >= entered[strong] / step**1.05)).all()


def test_lasso_keeps_one_of_two_equal_channels() -> None:
    gram = np.array([[2.0, 2.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    scores = entries(gram, 60)
    assert min(scores[0], scores[1]) < 0.2 * max(scores[0], scores[1])


@pytest.mark.parametrize("network_name", ["vit", "swin", "densenet"])
@pytest.mark.parametrize("name", CRITERIA)
def test_every_criterion_scores_every_axis(network_name: str, name: str) -> None:
    """Channels, heads, head widths, embeddings, MLPs, growths: whatever is an axis gets one finite, non-negative score per index."""
    program = zoo_program(network_name)
    assert program.model is not None
    data = Data([(images(network_name, 2), torch.tensor([1, 2]))], F.cross_entropy)
    scores = score_axes(name, program, program.model, data)
    assert {a.name: (a.size,) for a in program.axes} == {axis: s.shape for axis, s in scores.items()}
    for axis in program.axes:
        assert np.isfinite(scores[axis.name]).all()
        assert (scores[axis.name] >= 0).all()
        seen = name != "hap" or axis.size > 2  # a trace may be negative for all of two heads
        assert not axis.prunable or not seen or scores[axis.name].any(), axis


def test_hap_says_what_has_no_second_derivative() -> None:
    program = zoo_program("mobilenet_v3")
    assert program.model is not None
    with pytest.raises(OptionError, match=r"hap needs second derivatives: .*hardsigmoid"):
        score_axes("hap", program, program.model, Data([(images("mobilenet_v3", 2), torch.tensor([1, 2]))], F.cross_entropy))


@pytest.mark.parametrize("name", [n for n in CRITERIA if n not in {"l1", "l2", "l2-mean", "bn-scale", "fpgm", "lamp", "dimap", "random"}])
def test_bad_data_is_named(name: str, network: Residual, program: Program) -> None:
    with pytest.raises(DataError, match=f"criterion {name} needs data"):
        score_axes(name, program, network, None)
    with pytest.raises(DataError, match="empty"):
        score_axes(name, program, network, Data([], F.cross_entropy))
    with pytest.raises(DataError, match="does not accept"):
        score_axes(name, program, network, Data([(torch.randn(2, 5), torch.tensor([0, 1]))], F.cross_entropy))
    nans = [(torch.randn(2, 2, 4, 4), torch.tensor([0, 1])), (torch.full((2, 2, 4, 4), float("nan")), torch.tensor([0, 1]))]
    with pytest.raises(DataError, match="batch 1"):
        score_axes(name, program, network, Data(nans, F.cross_entropy))


def test_weights_that_can_have_no_gradient_are_named() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    healthy = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    program = infer_axes(capture(healthy, (torch.randn(1, 3),)))
    with pytest.raises(DataError, match=r"parameter 0\.weight was made in inference mode"):
        score_axes("taylor", program, model, Data([(torch.randn(2, 3), torch.tensor([0, 1]))], F.cross_entropy))
