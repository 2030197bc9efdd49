"""Small figures as inline SVG: curves, bars and ranges that follow the page's light or dark colours.

Every figure is drawn for a panel about 360 CSS pixels wide, so that it is read at its own size on a phone and several
stand side by side on a desk. Colours are names: matplotlib draws with stand-in colours, which are then replaced by the
page's CSS variables (``var(--ink)``, ``var(--series-0)``...). Series differ by colour (Okabe and Ito's palette for
colour-blind readers), by dash and by marker.
"""

import contextlib
import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

Floats = NDArray[np.float64]

INK, MUTED, GRID, PAPER = "#010203", "#020304", "#030405", "#040506"
SERIES = tuple(f"#0506{slot:02x}" for slot in range(7, 21))
"""Stand-ins for the page's colours. Slot 0 is the digital baseline's; those from 8 on are for parts of bars; see `Look`."""

_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper"} | {
    colour: f"--series-{slot}" for slot, colour in enumerate(SERIES)
}

_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "inmaterio",
    "font.size": 11.0,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
    "text.color": INK,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "hatch.linewidth": 0.8,
}

DASHES: tuple[Any, ...] = (
    "-",
    (0, (6.0, 2.0)),
    (0, (6.0, 2.0, 1.5, 2.0)),
    (0, (1.5, 1.8)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
_OUTLINES = (
    "M13.5 7a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z",
    "M13.8 3.8h6.4v6.4h-6.4z",
    "M17 3l4 7.4h-8z",
    "M17 2.6l4.2 4.4l-4.2 4.4l-4.2 -4.4z",
    "M17 11l-4 -7.4h8z",
    "M15.6 3h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z",
    "M13.4 5l2 -2l1.6 1.8l1.6 -1.8l2 2l-1.8 2l1.8 2l-2 2l-1.6 -1.8l-1.6 1.8l-2 -2l1.8 -2z",
    "M17 2.8l3.8 2.1v4.2l-3.8 2.1l-3.8 -2.1v-4.2z",
)
"""The same markers as paths in a box of 34 x 14, for legends."""
HATCHES = ("", "////", "", "....", "", "\\\\\\\\", "", "xxxx")
_HATCHED = {
    "////": "M5 13L11 1M12 13L18 1M19 13L25 1M25 13L30 3",
    "\\\\\\\\": "M5 1L11 13M12 1L18 13M19 1L25 13M25 1L30 11",
    "xxxx": "M5 13L11 1M12 13L18 1M19 13L25 1M5 1L11 13M12 1L18 13M19 1L25 13",
    "....": "M8 4h1.2M14 4h1.2M20 4h1.2M26 4h1.2M11 7h1.2M17 7h1.2M23 7h1.2M8 10h1.2M14 10h1.2M20 10h1.2M26 10h1.2",
}
"""Hatches of matplotlib by series slot, and the same in a box of 34 x 14."""


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of the page, whatever the user's own settings of matplotlib are."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


@dataclass(frozen=True, slots=True)
class Look:
    """How one rule is drawn everywhere on a page.

    Attributes
    ----------
    slot : int
        Index into the page's series colours; 0 (ink) belongs to the digital baseline.
    dash, marker : int
        Index into `DASHES` and `MARKERS`.
    hollow : bool
        Whether markers are empty: controls.
    """

    slot: int
    dash: int = 0
    marker: int = 0
    hollow: bool = False

    @property
    def colour(self) -> str:
        return SERIES[self.slot % len(SERIES)]

    @property
    def hatch(self) -> str:
        """Of a filled part: neighbouring slots differ, and so do two parts of one slot and different dash."""
        return HATCHES[(self.slot + self.dash) % len(HATCHES)]

    def strokes(self) -> dict[str, Any]:
        """Line options of matplotlib."""
        return {
            "color": self.colour,
            "linestyle": DASHES[self.dash % len(DASHES)],
            "marker": MARKERS[self.marker % len(MARKERS)],
            "markerfacecolor": PAPER if self.hollow else self.colour,
            "markeredgecolor": self.colour,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """One line with a band: `x`, `mean`, `low` and `high` all of shape (points,)."""

    label: str
    look: Look
    x: Floats
    mean: Floats
    low: Floats
    high: Floats


PREFIXES = ("y", "z", "a", "f", "p", "n", "µ", "m", "", "k", "M", "G", "T", "P", "E")


def engineering(value: float, unit: str, digits: int = 3) -> str:
    """A number with an SI prefix: ``engineering(3.21e-6, "J")`` is ``"3.21 µJ"``; not a number is ``"-"``.

    Three figures are kept, as in 12.3 or 0.0.
    """
    if not math.isfinite(value):
        return "–"
    if value == 0.0:
        return f"0 {unit}".strip()
    rounded = float(f"{value:.{digits - 1}e}")
    power = min(max(math.floor(math.log10(abs(rounded)) / 3.0 + 1e-9), -8), 6)
    gap = " " if unit else ""
    scaled = rounded / 1000.0**power
    decimals = max(0, digits - 1 - max(0, math.floor(math.log10(abs(scaled)) + 1e-9)))
    text = f"{scaled:.{decimals}f}"
    return f"{text}{gap}{PREFIXES[power + 8]}{unit}"


def tick_label(value: float, unit: str) -> str:
    """As `engineering`, without trailing zeros."""
    return re.sub(r"\.0+(?![0-9])|(\.[0-9]*[1-9])0+(?![0-9])", r"\1", engineering(value, unit))


def figure_svg(figure: Figure, name: str, title: str) -> str:
    """The figure as an ``<svg>`` element that scales with its container and loads nothing.

    Parameters
    ----------
    figure : Figure
    name : str
        Prefix of every id inside, unique on the page.
    title : str
        Read aloud by screen readers.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # HTML needs no namespaces, and a page without any address is easier to trust.
    text = re.sub(r'\sxmlns(?::xlink)?="[^"]*"', "", text)
    text = re.sub(r'xlink:href="#', 'href="#', text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # Families come from the page.
    text = re.sub(r"font: ([0-9.]+)px [^;\"]*", r"font-size: \1px", text)
    label = title.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    opening = re.match(r"<svg[^>]*>", text)
    assert opening is not None
    box = re.search(r'viewBox="([^"]+)"', opening.group())
    assert box is not None
    return f'<svg viewBox="{box.group(1)}" role="img" aria-label="{label}">{text[opening.end() :]}'


def panel(width: float = 3.6, height: float = 2.6) -> tuple[Figure, Axes]:
    # 100 pt of matplotlib are 100 units of the viewBox; the page shows one unit as one CSS pixel or a little more.
    figure = Figure(figsize=(width * 100 / 72, height * 100 / 72))
    return figure, figure.add_subplot()


def error_axis(axis: Axes, values: Sequence[float]) -> None:
    """A vertical axis for error rates: linear up to 1 %, logarithmic above, so that 2 % and 90 % are both read."""
    axis.set_yscale("symlog", linthresh=0.01, linscale=0.5)
    top = min(1.0, max((value for value in values if math.isfinite(value)), default=1.0) * 1.15)
    bottom = min((value for value in values if math.isfinite(value)), default=0.0)
    ticks = [0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    low = 0.0 if bottom < 0.01 else max(tick for tick in ticks if tick <= bottom)
    axis.set_ylim(low, max(top, low + 0.02))
    axis.yaxis.set_major_locator(FixedLocator(ticks))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g} %"))


def _horizontal(axis: Axes, curves: Sequence[Curve], unit: str | None, logarithmic: bool) -> None:
    values = np.concatenate([curve.x[np.isfinite(curve.x) & (curve.x > 0)] for curve in curves])
    if logarithmic and values.size:
        log_axis(axis, float(values.min()), float(values.max()), unit or "")
        return
    axis.xaxis.set_major_locator(MaxNLocator(5, integer=unit == "", steps=[1, 2, 5, 10]))
    axis.set_xlim(left=0.0)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if unit is None else tick_label(value, unit)))


def curves_svg(
    curves: Sequence[Curve],
    *,
    name: str,
    title: str,
    x_label: str,
    y_label: str,
    x_unit: str | None = "",
    logarithmic: bool = False,
    percent: bool = False,
    chance: float | None = None,
    limits: tuple[float, float] | None = None,
) -> str:
    """Lines with bands; empty when no curve has two finite points.

    Parameters
    ----------
    curves : sequence of Curve
    name, title : str
        As `figure_svg`.
    x_label, y_label : str
        Labels of the axes, units included.
    x_unit : str or None
        SI unit of the horizontal tick labels; empty for whole numbers, None for any others without a unit.
    logarithmic : bool
        Horizontal axis.
    percent : bool
        Whether the vertical values are error rates: see `error_axis`.
    chance : float, optional
        Level of guessing, drawn as a thin line.
    limits : tuple of float, optional
        Vertical limits.
    """
    drawn = [curve for curve in curves if np.isfinite(curve.x).any() and np.isfinite(curve.mean).any()]
    if not drawn:
        return ""
    with styled():
        figure, axis = panel()
        axis.grid(True)
        for curve in drawn:
            keep = np.isfinite(curve.x) & np.isfinite(curve.mean)
            if logarithmic:
                keep &= curve.x > 0
            x, mean = curve.x[keep], curve.mean[keep]
            axis.fill_between(x, curve.low[keep], curve.high[keep], color=curve.look.colour, alpha=0.16, linewidth=0)
            # Markers are spread along the line, the last one on its end, shifted by series so that they do not cover each other.
            marked = np.unique(np.append(np.arange(curve.look.marker % 3, len(x), max(1, len(x) // 4)), len(x) - 1))
            axis.plot(
                x, mean, linewidth=1.8, markersize=5.0, markeredgewidth=1.3, markevery=marked.tolist(), **curve.look.strokes()
            )
        values = [float(value) for curve in drawn for value in (*curve.low, *curve.high)]
        if chance is not None:
            axis.axhline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (1.0, 2.5)))
            place: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "xytext": (-2, 3), "textcoords": "offset points"}
            axis.annotate("chance", (1.0, chance), ha="right", fontsize=10, color=MUTED, **place)
            values.append(chance)
        if percent:
            error_axis(axis, values)
        elif limits is not None:
            axis.set_ylim(*limits)
        _horizontal(axis, drawn, x_unit, logarithmic)
        axis.set_xlabel(x_label)
        axis.set_title(y_label, loc="left", fontsize=11, color=INK)
        figure.subplots_adjust(left=0.14, right=0.97, bottom=0.2, top=0.88)
        return figure_svg(figure, name, title)


def log_axis(axis: Axes, low: float, high: float, unit: str) -> None:
    """A logarithmic horizontal axis with at most about five labels."""
    axis.set_xscale("log")
    margin = max((high / low) ** 0.06, 1.1)
    axis.set_xlim(low / margin, high * margin)
    decades = math.log10(high / low) + 2 * math.log10(margin)
    subs = (1.0, 2.0, 5.0) if decades < 1.7 else (1.0,)
    axis.xaxis.set_major_locator(LogLocator(base=10.0 ** max(1, math.ceil(decades / 5.5)), subs=subs, numticks=12))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value, unit)))


def swatch_svg(look: Look, patch: bool = False) -> str:
    """A sample of a look for a legend: a line with its marker, or a filled patch."""
    colour = _VARIABLES[look.colour]
    if patch:
        box = f'<rect x="4" y="1" width="26" height="12" style="fill: var({colour})"/>'
        hatch = _HATCHED.get(look.hatch, "")
        lines = f'<path d="{hatch}" style="fill: none; stroke: var(--paper); stroke-width: 1.2"/>' if hatch else ""
        return f'<svg viewBox="0 0 34 14" aria-hidden="true">{box}{lines}</svg>'
    dash = DASHES[look.dash % len(DASHES)]
    lengths = "" if isinstance(dash, str) else f"; stroke-dasharray: {' '.join(f'{1.8 * length:g}' for length in dash[1])}"
    fill = "--paper" if look.hollow else colour
    line = f'<path d="M0 7H34" style="fill: none; stroke: var({colour}); stroke-width: 2{lengths}"/>'
    outline = _OUTLINES[look.marker % len(_OUTLINES)]
    mark = f'<path d="{outline}" style="fill: var({fill}); stroke: var({colour}); stroke-width: 1.4"/>'
    return f'<svg viewBox="0 0 34 14" aria-hidden="true">{line}{mark}</svg>'
