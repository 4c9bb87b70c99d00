"""Sampling of images at places that are data (torch's grid_sample): TVM 0.27's importer takes the grid for one of another layout."""

from typing import Any, cast

from torch import fx

from .tvm_any import tvm

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1


def grid_sample(node: fx.Node, importer: Any) -> Any:
    """Values of an image [N, C, H, W] at places [N, h, w, 2] between -1 and 1, x first; outside it they are zero, or as at the border."""
    image, grid, interpolation, padding, aligned = cast("Any", node.args)
    if interpolation not in (_BILINEAR, _NEAREST) or padding not in (_ZEROS, _BORDER):
        raise NotImplementedError("grid_sample with bicubic interpolation or reflection; use bilinear or nearest with zeros or border")

    def compute(image: Any, grid: Any) -> Any:
        places = tvm.te.compute(grid.shape, lambda *at: _place(grid(*at), at[-1], image, padding, aligned), name="places")

        def element(n: Any, c: Any, h: Any, w: Any) -> Any:
            x, y = places(n, h, w, 0), places(n, h, w, 1)
            if interpolation == _NEAREST:
                return _read(image, n, c, tvm.te.nearbyint(y), tvm.te.nearbyint(x))
            left, top = tvm.te.floor(x), tvm.te.floor(y)
            rows = [(top, 1 - (y - top)), (top + 1, y - top)]
            columns = [(left, 1 - (x - left)), (left + 1, x - left)]
            first, *others = [_read(image, n, c, at, across) * (p * q) for at, p in rows for across, q in columns]
            return sum(others, first)

        shape = [*image.shape[:2], *grid.shape[1:3]]
        return tvm.te.compute(shape, element, name="sample")

    return importer.block_builder.emit_te(compute, importer.env[image], importer.env[grid])


def _place(given: Any, axis: Any, image: Any, padding: int, aligned: bool) -> Any:
    """A place between -1 and 1 in pixels along the image's width (axis 0) or height (axis 1), at most one beyond the border."""
    size = tvm.tirx.if_then_else(axis == 0, image.shape[3], image.shape[2]).astype("float32")
    pixel = (given + 1.0) * 0.5 * (size - 1.0) if aligned else ((given + 1.0) * size - 1.0) * 0.5
    beyond = 0.0 if padding == _BORDER else 1.0
    return tvm.te.max(tvm.te.min(pixel, size - 1.0 + beyond), tvm.tirx.const(-beyond, "float32"))


def _read(image: Any, n: Any, c: Any, y: Any, x: Any) -> Any:
    """A pixel, zero outside the image."""
    row, column = y.astype("int64"), x.astype("int64")
    inside = tvm.tirx.all(row >= 0, row < image.shape[2], column >= 0, column < image.shape[3])
    return tvm.tirx.if_then_else(inside, image(n, c, row, column), tvm.tirx.const(0, image.dtype))
