"""Dots with intervals: how much each rule errs more or less with the physics than without."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import FuncFormatter, MaxNLocator

from inmaterio.experiments.plots import GRID, INK, MUTED, PAPER, Look, figure_svg, panel, styled

OVERSHOOT = 2.5
"""An interval is drawn to so many times the largest estimate beside it, and ends in an arrow where it goes on."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One paired difference of errors with its interval, both None where one pair gives none, and the words at its right."""

    label: str
    look: Look
    estimate: float
    low: float | None
    high: float | None
    words: str


def reach(drawn: Sequence[Difference], margin: float) -> float:
    """Half the width of the axis, on which zero stands in the middle."""
    largest = max((abs(one.estimate) for one in drawn), default=0.0)
    ends = [abs(end) for one in drawn for end in (one.low, one.high) if end is not None and math.isfinite(end)]
    return 1.08 * max(2.0 * margin, min(max([largest, *ends]), OVERSHOOT * max(largest, margin)))


def differences_svg(
    drawn: Sequence[Difference], *, name: str, title: str, heading: str, x_label: str, half: float, margin: float, percent: bool
) -> str:
    """A line per rule: its name, what the difference says, and below both the dot with its interval; empty without lines.

    Parameters
    ----------
    drawn : sequence of Difference
    name, title : str
        As `inmaterio.experiments.plots.figure_svg`.
    heading : str
        What the physics is held against.
    x_label : str
    half : float
        The axis goes from ``-half`` to ``half``: see `reach`.
    margin : float
        Within so much either way two errors count as equal: a band around zero.
    percent : bool
        Whether differences are of error rates and stand in percentage points.
    """
    if not drawn:
        return ""
    row, above = 36.0, 38.0
    height = row * len(drawn) + above + 52.0
    scale = 100.0 if percent else 1.0
    with styled():
        figure, axis = panel(height=height / 100.0)
        axis.grid(True, axis="x")
        bottom = row * len(drawn) + 4.0
        axis.axvspan(-margin, margin, color=GRID, linewidth=0, zorder=0.5)
        axis.plot([0.0, 0.0], [0.0, bottom], color=INK, linewidth=1.0, zorder=1.5)
        axis.set_title(heading, loc="left", fontsize=11, color=INK, pad=22)
        for words, side, place in (("← physics helps", "left", 0.0), ("physics harms →", "right", 1.0)):
            where = {"xycoords": "axes fraction", "xytext": (0, 5), "textcoords": "offset points"}
            axis.annotate(words, (place, 1.0), ha=side, fontsize=10, color=MUTED, **where)  # type: ignore[arg-type]
        box = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.0}
        for index, one in enumerate(drawn):
            top = row * index
            axis.annotate(one.label, (0.0, top + 14.0), xycoords=("axes fraction", "data"), fontsize=10.5, bbox=box)
            axis.annotate(
                one.words, (1.0, top + 14.0), xycoords=("axes fraction", "data"), fontsize=10.5, ha="right", color=MUTED, bbox=box
            )
            options = one.look.strokes() | {"linestyle": "none"}
            y = top + 26.0
            if one.low is not None and one.high is not None:
                ends = (max(one.low, -half), min(one.high, half))
                axis.plot(ends, (y, y), color=one.look.colour, linewidth=1.8, solid_capstyle="butt")
                for end, cut, arrow in ((ends[0], one.low < -half, "<"), (ends[1], one.high > half, ">")):
                    axis.plot([end], [y], color=one.look.colour, marker=arrow if cut else "|", markersize=7.0, clip_on=False)
            axis.plot([one.estimate], [y], markersize=7.0, zorder=3, **options)
        axis.set_xlim(-half, half)
        axis.set_ylim(bottom, 0.0)
        axis.yaxis.set_visible(False)
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(6, symmetric=True, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{scale * value:+.3g}".replace("-", "−") if value else "0")
        )
        axis.set_xlabel(x_label)
        figure.subplots_adjust(left=0.04, right=0.96, bottom=44.0 / height, top=1.0 - above / height)
        return figure_svg(figure, name, title)
