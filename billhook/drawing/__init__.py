"""The graph of a Program as a picture: one row for each kernel, one line for each value, coloured by axis."""

from .page import draw, to_html, to_svg

__all__ = ["draw", "to_html", "to_svg"]
