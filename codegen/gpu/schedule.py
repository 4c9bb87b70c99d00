"""GPU schedules: a tiled matrix product with its epilogue for what gemm.py wrote down, TVM's rules for everything else."""

from typing import Any

from billhook.codegen.tvm_any import tvm

from .gemm import GEMM, LEFT, RIGHT, TILE
from .tile import Tile, tile_from_text


def schedule(function: Any, target: Any) -> Any:
    """The function with its loops bound to blocks and threads of the GPU."""
    module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
    blocks = tvm.s_tir.Schedule(module)
    if GEMM in _names(blocks):
        return schedule_product(blocks)
    dlight: Any = __import__("tvm.s_tir.dlight", fromlist=["gpu"])
    gpu = dlight.gpu
    with target:
        return dlight.ApplyDefaultSchedule(gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())(module)["main"]


def schedule_product(blocks: Any) -> Any:
    """Schedule a padded product: operands staged in shared memory, accumulators in registers, the epilogue on the accumulators."""
    gemm = blocks.get_sblock(GEMM)
    tile = tile_from_text(str(blocks.get(gemm).annotations[TILE]))
    blocks.unannotate(gemm, TILE)
    last = _inline_epilogue(blocks)
    _flatten_output(blocks, last, gemm)
    i, j, k = blocks.get_loops(gemm)
    block_i, thread_i, inner_i = blocks.split(i, [None, tile.down, tile.thread_rows])
    block_j, thread_j, inner_j = blocks.split(j, [None, tile.across, tile.thread_columns])
    stage, step = blocks.split(k, [None, tile.depth])
    blocks.reorder(block_i, block_j, thread_i, thread_j, stage, step, inner_i, inner_j)
    for loop, axis in ((block_i, "blockIdx.y"), (block_j, "blockIdx.x"), (thread_i, "threadIdx.y"), (thread_j, "threadIdx.x")):
        blocks.bind(loop, axis)
    blocks.set_scope(gemm, 0, "local")
    blocks.reverse_compute_at(last, thread_j, preserve_unit_loops=True)
    for name in (LEFT, RIGHT):
        _stage_operand(blocks, blocks.get_sblock(name), stage, tile)
    blocks.decompose_reduction(gemm, stage)
    for loop in (step, inner_i, inner_j):
        blocks.unroll(loop)
    return blocks.mod["main"]


def _names(blocks: Any) -> list[str]:
    return [str(blocks.get(b).name_hint) for b in blocks.get_child_blocks(blocks.get_sblock("root"))]


def _inline_epilogue(blocks: Any) -> Any:
    """Inline the calls between the product and the output into the one that writes the output."""
    while True:
        after = blocks.get_child_blocks(blocks.get_sblock("root"))[_names(blocks).index(GEMM) + 1 :]
        if len(after) == 1:
            return after[0]
        blocks.compute_inline(after[0])


def _flatten_output(blocks: Any, last: Any, gemm: Any) -> None:
    """Let the output's block iterate over the product's rows and columns instead of the output's own dimensions."""
    product = blocks.get(gemm).writes[0].source
    read = next(r for r in blocks.get(last).reads if r.source.same_as(product))
    variables = [v.var for v in blocks.get(last).iter_vars]
    blocks.transform_block_layout(last, tvm.tirx.IndexMap(variables, [r.min for r in read.region], None))


def _stage_operand(blocks: Any, operand: Any, stage: Any, tile: Tile) -> None:
    """Compute a tile of an operand into shared memory, all threads of the block together."""
    blocks.set_scope(operand, 0, "shared")
    blocks.compute_at(operand, stage, preserve_unit_loops=True)
    fused = blocks.fuse(*blocks.get_loops(operand)[-2:])
    _, thread_y, thread_x = blocks.split(fused, [None, tile.down, tile.across])
    blocks.bind(thread_y, "threadIdx.y")
    blocks.bind(thread_x, "threadIdx.x")
