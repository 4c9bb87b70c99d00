"""The page: a record and its views put into the template."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from . import charts, views
from . import format as fmt
from .record import Record, parse_record, write_whole


def to_html(record: Record) -> str:
    """The whole report as one HTML text: styles and drawings inline, nothing fetched, no script."""
    environment = Environment(
        loader=PackageLoader("billhook.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    filters: dict[str, Any] = {
        "seconds": fmt.seconds,
        "percent": fmt.percent,
        "signed": fmt.signed_percent,
        "significant": fmt.significant,
        "bytes": fmt.size,
        "amount": fmt.amount,
    }
    environment.filters.update(filters)
    runtimes, budget_at = views.runtime_rows(record)
    kernels = views.kernel_lines(record)
    return environment.get_template("page.html.j2").render(
        record=record,
        hero=views.hero(record),
        runtimes=runtimes,
        budget_at=budget_at,
        front=charts.front_chart(record),
        kernels=kernels,
        roofline=views.roofline(kernels),
        kernel_chart=charts.kernel_chart(record.kernels),
        kernel_error=views.kernel_error(record.kernels),
        contenders=views.contender_rows(record),
        cut=[axis for axis in record.axes if axis.prunable],
        widest=max((axis.size for axis in record.axes), default=1),
        frozen=views.frozen_rows(record.axes),
    )


def render(record: Record | Mapping[str, Any], path: Path) -> None:
    """Write the report of a record, whole or not at all.

    Raises:
        OptionError: the mapping is no record.
    """
    parsed = record if isinstance(record, Record) else parse_record(record)
    write_whole(path, to_html(parsed))
