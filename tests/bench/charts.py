"""SVG charts: stacked bars, and lines, for browsers in light or dark mode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import floor, log10
from pathlib import Path

COLOURS = ("#4878a8", "#e0913c", "#5a9e6f", "#b5565a", "#8172b2", "#937860")
_WIDTH, _HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 60, 60
_GREY = "#8a8a8a"

Points = Sequence[tuple[float, float]]


@dataclass
class _Drawing:
    title: str
    x_label: str
    y_label: str
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, what: str, anchor: str = "middle", size: int = 12, more: str = "") -> None:
        style = f'text-anchor="{anchor}" font-size="{size}" fill="{_GREY}" {more}'
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(what)}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: str = _GREY, more: str = "") -> None:
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        self.parts.append(f'<line {ends} stroke="{colour}" {more}/>')

    def legend(self, names: Sequence[str]) -> None:
        x = float(_LEFT)
        for name, colour in zip(names, COLOURS, strict=False):
            self.parts.append(f'<rect x="{x:.1f}" y="36" width="10" height="10" fill="{colour}"/>')
            self.text(x + 15, 45, name, "start")
            x += 30 + 7.2 * len(name)

    def axis(self, top: float) -> None:
        for value in _steps(top):
            y = _y(value, top)
            self.line(_LEFT, y, _WIDTH - _RIGHT, y, more='stroke-opacity="0.3"')
            self.text(_LEFT - 8, y + 4, f"{value:g}", "end")

    def svg(self) -> str:
        self.text(_LEFT, 22, self.title, "start", 15, 'font-weight="bold"')
        self.text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 12, self.x_label)
        middle = (_TOP + _HEIGHT - _BOTTOM) / 2
        self.text(18, middle, self.y_label, more=f'transform="rotate(-90 18 {middle})"')
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif">'
        return "\n".join((head, *self.parts, "</svg>\n"))


def bars(path: Path, title: str, y_label: str, found: Mapping[str, Mapping[str, float]]) -> None:
    """Draw stacked bars. `found`: the parts of each bar."""
    drawing = _Drawing(title, "", y_label)
    parts = list(dict.fromkeys(part for bar in found.values() for part in bar))
    top = _round_up(max(sum(bar.values()) for bar in found.values()))
    drawing.legend(parts)
    drawing.axis(top)
    place = (_WIDTH - _LEFT - _RIGHT) / len(found)
    for number, (name, bar) in enumerate(found.items()):
        x, below = _LEFT + place * (number + 0.2), 0.0
        for part, colour in zip(parts, COLOURS, strict=False):
            value = bar.get(part, 0.0)
            y, height = _y(below + value, top), _y(below, top) - _y(below + value, top)
            box = f'x="{x:.1f}" y="{y:.1f}" width="{place * 0.6:.1f}" height="{height:.1f}" fill="{colour}"'
            drawing.parts.append(f"<rect {box}><title>{escape(part)}: {value:.3g}</title></rect>")
            below += value
        drawing.text(x + place * 0.3, _y(below, top) - 5, f"{below:.3g}")
        drawing.text(x + place * 0.3, _HEIGHT - _BOTTOM + 18, name)
    path.write_text(drawing.svg())


def lines(path: Path, title: str, labels: tuple[str, str], found: Mapping[str, Points], limit: float = 0.0) -> None:
    """Draw lines. `labels`: of x and y; `limit`: unless 0, a dashed line across, above which values are too high."""
    drawing = _Drawing(title, *labels)
    right = _round_up(max((x for points in found.values() for x, _ in points), default=1.0))
    # Values far above the limit would make all others small, so they leave the chart.
    highest = max((y for points in found.values() for _, y in points), default=1.0)
    top = _round_up(min(highest, limit * 2) if limit else highest)
    drawing.legend(list(found))
    drawing.axis(top)
    for value in _steps(right):
        drawing.text(_x(value, right), _HEIGHT - _BOTTOM + 18, f"{value:g}")
    if limit:
        y = _y(limit, top)
        drawing.line(_LEFT, y, _WIDTH - _RIGHT, y, more='stroke-dasharray="5 4"')
    for points, colour in zip(found.values(), COLOURS, strict=False):
        at = " ".join(f"{_x(x, right):.1f},{_y(min(y, top), top):.1f}" for x, y in points)
        drawing.parts.append(f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"/>')
    path.write_text(drawing.svg())


def _x(value: float, right: float) -> float:
    return _LEFT + value / right * (_WIDTH - _LEFT - _RIGHT)


def _y(value: float, top: float) -> float:
    return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)


def _steps(top: float) -> list[float]:
    return [top * n / 5 for n in range(6)]


def _round_up(value: float) -> float:
    """Return the next number whose fifths are easily read."""
    if value <= 0:
        return 1.0
    unit = 10.0 ** floor(log10(value))
    return next(unit * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 7.5, 10) if unit * step >= value)
