"""A bar chart as an SVG text, for reports."""

from collections.abc import Mapping
from html import escape

_ROW = 22
_LABELS = 180
_WIDTH = 360


def bar_chart(title: str, values: Mapping[str, float]) -> str:
    """Return a chart of values from 0 to 1, one bar each, in the order given.

    >>> bar_chart("F1", {"weapons": 0.5}).count("<rect")
    1
    """
    height = _ROW * (len(values) + 2)
    bars = "".join(_bar(number, name, value) for number, (name, value) in enumerate(values.items(), start=1))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LABELS + _WIDTH + 60}" height="{height}" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<text x="8" y="16" font-weight="bold">{escape(title)}</text>{bars}</svg>\n'
    )


def _bar(number: int, name: str, value: float) -> str:
    top, length = _ROW * number + 4, max(0.0, min(1.0, value)) * _WIDTH
    return (
        f'<text x="8" y="{top + 13}">{escape(name)}</text>'
        f'<rect x="{_LABELS}" y="{top}" width="{length:.1f}" height="{_ROW - 6}" fill="#3b6ea5"/>'
        f'<text x="{_LABELS + length + 6:.1f}" y="{top + 13}">{value:.2f}</text>'
    )
