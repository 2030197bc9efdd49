"""Figures of energy: medians with their range, shares by component, and what the total is most sensitive to."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.ticker import FixedLocator, FuncFormatter

from inmaterio.experiments.plots import DASHES, INK, MUTED, PAPER, SERIES, Look, figure_svg, log_axis, panel, styled


@dataclass(frozen=True, slots=True)
class Range:
    """A median with its P10 and P90, drawn as a dot with an error bar on the line of its group."""

    group: str
    look: Look
    low: float
    middle: float
    high: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One stacked bar: the amount of each part by name, all in one unit, and the text at the bar's end."""

    label: str
    parts: Mapping[str, float]
    total: str


def ranges_svg(ranges: Sequence[Range], *, name: str, title: str, x_label: str, unit: str) -> str:
    """Medians with P10 to P90 on a logarithmic axis, one line of the figure per group; empty when nothing is positive.

    Groups stand in the order of their first appearance, from the top.
    """
    drawn = [one for one in ranges if 0.0 < one.low <= one.middle <= one.high < math.inf]
    if not drawn:
        return ""
    groups = list(dict.fromkeys(one.group for one in drawn))
    members = {group: [one for one in drawn if one.group == group] for group in groups}
    row = 13.0
    heights = {group: row * len(members[group]) + 26.0 for group in groups}
    height = sum(heights.values()) + 62.0
    with styled():
        figure, axis = panel(height=height / 100.0)
        axis.grid(True, axis="x")
        top = 0.0
        for group in groups:
            axis.annotate(group, (0.0, top + 14.0), xycoords=("axes fraction", "data"), fontsize=10, color=MUTED, ha="left")
            for index, one in enumerate(members[group]):
                y = top + 24.0 + row * index
                options = one.look.strokes() | {"linestyle": "none"}
                bar = axis.errorbar(
                    one.middle,
                    y,
                    xerr=[[one.middle - one.low], [one.high - one.middle]],
                    capsize=3.0,
                    elinewidth=1.6,
                    markersize=6.0,
                    **options,
                )
                for line in bar.lines[2]:
                    line.set_linestyle(DASHES[one.look.dash % len(DASHES)])
            top += heights[group]
        axis.set_ylim(top, 0.0)
        axis.yaxis.set_visible(False)
        axis.spines["left"].set_visible(False)
        log_axis(axis, min(one.low for one in drawn), max(one.high for one in drawn), unit)
        axis.set_xlabel(x_label)
        figure.subplots_adjust(left=0.04, right=0.93, bottom=44.0 / height, top=1.0 - 10.0 / height)
        return figure_svg(figure, name, title)


def stacked_svg(bars: Sequence[Bar], looks: Mapping[str, Look], *, name: str, title: str, x_label: str) -> str:
    """Bars of 100 %, stacked by part; empty when no bar has a positive part.

    Parameters
    ----------
    bars : sequence of Bar
    looks : mapping of str to Look
        Colour slot of each part; the order is that of the stack.
    name, title : str
        As `figure_svg`.
    x_label : str
        Label of the axis of shares.
    """
    drawn = [bar for bar in bars if sum(bar.parts.values()) > 0.0]
    if not drawn:
        return ""
    row, height = 46.0, 46.0 * len(drawn) + 52.0
    with styled():
        figure, axis = panel(height=height / 100.0)
        for index, bar in enumerate(drawn):
            total, left = sum(bar.parts.values()), 0.0
            y = row * index
            axis.annotate(bar.label, (0.0, y + 12.0), xycoords=("axes fraction", "data"), fontsize=10.5)
            axis.annotate(bar.total, (1.0, y + 12.0), xycoords=("axes fraction", "data"), fontsize=10.5, ha="right")
            for part, look in looks.items():
                share = bar.parts.get(part, 0.0) / total
                if share <= 0.0:
                    continue
                axis.barh(
                    y + 26.0, share, left=left, height=18.0, color=look.colour, hatch=look.hatch, edgecolor=PAPER, linewidth=1.0
                )
                left += share
        axis.set_xlim(0.0, 1.0)
        axis.set_ylim(row * len(drawn), 0.0)
        axis.yaxis.set_visible(False)
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_locator(FixedLocator([0.0, 0.25, 0.5, 0.75, 1.0]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
        axis.set_xlabel(x_label)
        figure.subplots_adjust(left=0.05, right=0.95, bottom=44.0 / height, top=1.0 - 4.0 / height)
        return figure_svg(figure, name, title)


def tornado_svg(
    spans: Sequence[tuple[str, float, float]], middle: float, *, name: str, title: str, x_label: str, unit: str
) -> str:
    """What the total becomes when one constant alone goes from low to high; empty when nothing moves.

    Parameters
    ----------
    spans : sequence of (str, float, float)
        Constant, total at its low value, total at its high value; longest first.
    middle : float
        Total at typical values, drawn as a line.
    """
    drawn = [span for span in spans if min(span[1:]) > 0.0 and span[1] != span[2]]
    if not drawn:
        return ""
    row, height = 38.0, 38.0 * len(drawn) + 56.0
    with styled():
        figure, axis = panel(height=height / 100.0)
        axis.grid(True, axis="x")
        for index, (label, low, high) in enumerate(drawn):
            y = row * index
            box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
            axis.annotate(label, (0.0, y + 13.0), xycoords=("axes fraction", "data"), fontsize=10.5, bbox=box)
            axis.barh(y + 24.0, middle - low, left=low, height=12.0, color=SERIES[5], linewidth=0)
            axis.barh(
                y + 24.0, high - middle, left=middle, height=12.0, color=SERIES[2], hatch="////", edgecolor=PAPER, linewidth=0
            )
        axis.axvline(middle, color=INK, linewidth=1.0, zorder=1.5)
        axis.set_ylim(row * len(drawn), 0.0)
        axis.yaxis.set_visible(False)
        axis.spines["left"].set_visible(False)
        log_axis(axis, min(min(span[1:]) for span in drawn), max(max(span[1:]) for span in drawn), unit)
        axis.set_xlabel(x_label)
        figure.subplots_adjust(left=0.04, right=0.93, bottom=44.0 / height, top=1.0 - 6.0 / height)
        return figure_svg(figure, name, title)
