"""Charts as inline SVG. They have no script, font or colour of their own and so follow the page, light or dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 320, 220
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 38


@dataclass(frozen=True)
class Line:
    """A polyline: points, the name in the legend, and the CSS class that colours it (`s1`, `s2`, ... or `faint`)."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    style: str = "s1"
    stepped: bool = False


@dataclass(frozen=True)
class Frame:
    """The mapping from values to places on the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        """Return the horizontal place of a value."""
        span = self.x_high - self.x_low or 1
        return LEFT + (value - self.x_low) / span * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical place of a value."""
        span = self.y_high - self.y_low or 1
        return HEIGHT - BOTTOM - (value - self.y_low) / span * (HEIGHT - TOP - BOTTOM)


def line_chart(
    lines: list[Line],
    x_label: str,
    y_label: str,
    description: str,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Return a line chart. `marks` are vertical lines (x, label); `description` is what a screen reader says."""
    values = [value for line in lines for value in line.y]
    places = [value for line in lines for value in line.x]
    frame = Frame(
        *(x_range or (min(places), max(places))),
        *(y_range or (min(0.0, min(values)), nice_ceiling(max(values)))),
    )
    parts = [axes(frame, x_label, y_label)]
    for place, label in marks:
        x = frame.x(place)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        anchor, shift = ("start", 4) if place < (frame.x_low + frame.x_high) / 2 else ("end", -4)
        parts.append(f'<text x="{x + shift:.1f}" y="{TOP + 10}" text-anchor="{anchor}">{escape(label)}</text>')
    parts += [f'<path class="line {line.style}" d="{path_of(line, frame)}"/>' for line in lines]
    return svg("".join(parts), description)


def bar_chart(
    groups: list[tuple[str, str, Sequence[float]]],
    edges: Sequence[float],
    x_label: str,
    y_label: str,
    description: str,
    marks: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Return stacked bars over bins: each of `groups` is (name, style, heights by bin), `edges` are the bins' ends."""
    totals = [sum(heights) for heights in zip(*(values for _, _, values in groups), strict=True)]
    frame = Frame(edges[0], edges[-1], 0.0, nice_ceiling(max(totals)))
    parts = [axes(frame, x_label, y_label)]
    for bar in range(len(edges) - 1):
        base = 0.0
        left, right = frame.x(edges[bar]) + 0.7, frame.x(edges[bar + 1]) - 0.7
        for _, style, values in groups:
            top = base + values[bar]
            if values[bar] > 0:
                parts.append(
                    f'<rect class="bar {style}" x="{left:.1f}" width="{right - left:.1f}" '
                    f'y="{frame.y(top):.1f}" height="{frame.y(base) - frame.y(top):.1f}"/>'
                )
            base = top
    for place, label in marks:
        x = frame.x(place)
        parts.append(f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        anchor, shift = ("start", 4) if place < 0.5 else ("end", -4)
        parts.append(f'<text x="{x + shift:.1f}" y="{TOP + 10}" text-anchor="{anchor}">{escape(label)}</text>')
    return svg("".join(parts), description)


def range_bar(value: float, low: float, high: float, start: float, end: float, floor: float | None = None) -> Markup:
    """Return a small horizontal interval with its figure as a dot, on a scale from `start` to `end`.

    Screen readers skip it, because the table beside it has the same figures.
    """
    width, height = 92, 16

    def place(number: float) -> float:
        return 4 + (min(max(number, start), end) - start) / ((end - start) or 1) * (width - 8)

    bound = ""
    if floor is not None:
        bound = f'<line class="mark" x1="{place(floor):.1f}" x2="{place(floor):.1f}" y1="1" y2="{height - 1}"/>'
    return Markup(
        f'<svg class="range" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">'
        f'<line class="track" x1="4" x2="{width - 4}" y1="8" y2="8"/>{bound}'
        f'<line class="span" x1="{place(low):.1f}" x2="{place(high):.1f}" y1="8" y2="8"/>'
        f'<circle cx="{place(value):.1f}" cy="8" r="3.5"/></svg>'
    )


def svg(content: str, description: str) -> Markup:
    """Return `content` as a chart that a screen reader announces by `description`."""
    return Markup(
        f'<svg class="chart" role="img" viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{escape(description)}">'
        f"{content}</svg>"
    )


def axes(frame: Frame, x_label: str, y_label: str) -> str:
    """Return grid lines, tick labels and axis labels."""
    parts = []
    for value in ticks(frame.y_low, frame.y_high):
        y = frame.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(frame.x_low, frame.x_high):
        if x_label in COUNTED and value != int(value):
            continue
        parts.append(f'<text x="{frame.x(value):.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:g}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>')
    height = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="label" x="11" y="{height}" text-anchor="middle" transform="rotate(-90 11 {height})">'
        f"{escape(y_label)}</text>"
    )
    return "".join(parts)


def path_of(line: Line, frame: Frame) -> str:
    """Return the path of a line; a stepped one goes across before it goes up."""
    steps = []
    for place, (x, y) in enumerate(zip(line.x, line.y, strict=True)):
        if place == 0:
            steps.append(f"M{frame.x(x):.1f} {frame.y(y):.1f}")
        elif line.stepped:
            steps.append(f"H{frame.x(x):.1f}V{frame.y(y):.1f}")
        else:
            steps.append(f"L{frame.x(x):.1f} {frame.y(y):.1f}")
    return "".join(steps)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return round values from `low` to `high`, at most `most` + 1 of them."""
    span = high - low
    if span <= 0:
        return [low]
    step = next(step for step in _STEPS if span / step <= most)
    first = int(-(-(low - 1e-9 * span) // step))
    return [round(place * step, 12) for place in range(first, int((high + 1e-9 * span) // step) + 1)]


def nice_ceiling(value: float) -> float:
    """Return the next round value above, so that the highest point does not touch the frame."""
    return next((top for top in _ROUND if top >= value), value) if value > 0 else 1.0


COUNTED = ("epoch", "window")  # there is no epoch 1.2
_STEPS = [digit * 10.0**exponent for exponent in range(-9, 12) for digit in (1, 2, 5)]
_ROUND = [digit * 10.0**exponent for exponent in range(-6, 9) for digit in (1, 1.5, 2, 3, 4, 5, 6, 8)]
