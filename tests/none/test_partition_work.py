"""Work of kernels: multiply-adds count two, moves nothing, bytes include the padding lanes."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from billhook.costmodel.partition import partition
from billhook.costmodel.work import kernel_bytes, kernel_flops
from billhook.ir.capture import capture
from billhook.ir.grouped_matmul import NAME, grouped_matmul
from billhook.ir.target import Target
from billhook.ir.workload import Call, Ref, TensorType, Workload
from billhook.passes.normalise import normalise_for_inference


def flops(model: nn.Module, *inputs: torch.Tensor) -> list[int]:
    captured = capture(model.eval(), inputs)
    network = partition(normalise_for_inference(captured.graph, captured.example), Target()).network
    return [kernel_flops(k.workload) for k in network.kernels]


def test_a_convolution_counts_its_multiply_adds_and_its_epilogue() -> None:
    for groups in (1, 8):
        model = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, groups=groups), nn.ReLU())
        assert max(flops(model, torch.randn(2, 8, 5, 5))) == 2 * (2 * 16 * 25) * (8 // groups) * 9 + 2 * 16 * 25


def test_a_linear_map_counts_its_rows() -> None:
    assert flops(nn.Linear(12, 7), torch.randn(2, 3, 12)) == [2 * 6 * 12 * 7]


def test_attention_counts_both_products_and_its_moves_nothing() -> None:
    class Attention(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = x.view(2, 5, 3, 4, 6).permute(2, 0, 3, 1, 4).unbind(0)
            return nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 24)

    assert flops(Attention(), torch.randn(2, 5, 72)) == [2 * (2 * 4 * 5) * 5 * (6 + 6)]


def test_rows_in_groups_count_one_matrix_for_each_row() -> None:
    types = TensorType((10, 6)), TensorType((4, 6, 5)), TensorType((4,), "int32")
    grouped = Call(NAME, (Ref(0), Ref(1), Ref(2)))
    doubled = Call("aten.neg.default", (Ref(0),)), Call(NAME, (Ref(3), Ref(1), Ref(2)))
    roles = "activation", "parameter", "activation"
    assert kernel_flops(Workload(types, roles, (grouped,), TensorType((10, 5)))) == 2 * 10 * 6 * 5
    assert kernel_flops(Workload(types, roles, doubled, TensorType((10, 5)))) == 2 * 10 * 6 * 5 + 10 * 6


def test_rows_in_groups_go_through_their_group_s_matrix() -> None:
    x, weight, ends = torch.randn(9, 4), torch.randn(4, 4, 3), torch.tensor([2, 2, 7, 8], dtype=torch.int32)
    expected = torch.cat([x[:2] @ weight[0], x[2:7] @ weight[2], x[7:8] @ weight[3], torch.zeros(1, 3)])
    torch.testing.assert_close(grouped_matmul(x, weight, ends), expected)


def test_a_network_counts_what_torch_counts() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
    x = torch.randn(2, 3, 8, 8)
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert sum(flops(model, x)) == counter.get_total_flops()


def test_bytes_include_padding_and_element_size() -> None:
    given, mask = TensorType((2, 12, 3, 3), block=8), TensorType((12, 1, 1), "bool")
    call = Call("aten.where.self", (Ref(1), Ref(0), Ref(0)))
    assert kernel_bytes(Workload((given, mask), ("activation", "parameter"), (call,), given)) == 2 * 4 * (2 * 16 * 9) + 12


def test_a_layout_change_computes_nothing() -> None:
    given = TensorType((1, 16, 4, 4))
    blocked = TensorType((1, 16, 4, 4), block=16)
    assert kernel_flops(Workload((given,), ("activation",), (Call("billhook.layout", (Ref(0),)),), blocked)) == 0
