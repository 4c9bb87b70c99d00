"""The report: a versioned record of a run, and its rendering as one self-contained HTML page."""

from .page import render, to_html
from .record import AxisRow, Check, FrontPoint, KernelRow, Record, Stage, parse_record, read_record, write_record

__all__ = [
    "AxisRow",
    "Check",
    "FrontPoint",
    "KernelRow",
    "Record",
    "Stage",
    "parse_record",
    "read_record",
    "render",
    "to_html",
    "write_record",
]
