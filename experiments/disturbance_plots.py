"""Error against epoch across a knock or a drift, as inline SVG: all lines in one figure, and one panel per line."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from inmaterio.experiments.disturbance_rows import Row
from inmaterio.experiments.plots import INK, MUTED, Curve, Look, error_axis, figure_svg, panel, styled

Floats = NDArray[np.float64]

LABEL_GAP = 0.052
"""Least distance of two labels, as a share of the height of the figure's axes."""

WITHOUT, WITH, FIXED = (1, 2, 3, 6, 8), (4, 5, 9), (7,)
"""Series colours of rules without a model, with one, and of the line that does not adapt."""


def looks(rows: Sequence[Row]) -> dict[str, Look]:
    """A look per line: filled and solid without a model, hollow and dashed with one, dotted grey where nothing adapts."""
    found: dict[str, Look] = {}
    counts = {"without": 0, "with": 0}
    for row in rows:
        if row["rule"] in found:
            continue
        if row["rule"].startswith("frozen ("):
            found[row["rule"]] = Look(FIXED[0], 3, 4, hollow=True)
            continue
        kind = "without" if row["model"] == "none" else "with"
        slots, place = WITHOUT if kind == "without" else WITH, counts[kind]
        counts[kind] += 1
        found[row["rule"]] = Look(slots[place % len(slots)], 0 if kind == "without" else 1, place % 8, hollow=kind == "with")
    return found


def curve_of(row: Row, look: Look, key: str = "curve") -> Curve:
    """Mean over seeds with a band of one standard deviation."""
    errors = np.array([[np.nan if one is None else one for one in seed] for seed in row[key]["errors"]], dtype=np.float64)
    mean = errors.mean(axis=0)
    wide = errors.std(axis=0, ddof=1) if len(errors) > 1 else np.zeros_like(mean)
    epochs = np.array(row[key]["epochs"], dtype=np.float64)
    return Curve(row["rule"], look, epochs, mean, np.maximum(mean - wide, 0.0), mean + wide)


def overview_svg(rows: Sequence[Row], chosen: dict[str, Look], *, name: str, title: str) -> str:
    """Every line in one wide figure, each with its name at its right end."""
    curves = [curve_of(row, chosen[row["rule"]]) for row in rows]
    with styled():
        figure, axis = panel(7.8, 4.2)
        _prepare(axis, rows[0], curves)
        for curve in curves:
            _draw(axis, curve, curve.look.strokes())
        axis.set_ylabel("")
        figure.subplots_adjust(left=0.075, right=0.7, bottom=0.13, top=0.92)
        _label_ends(axis, curves)
        return figure_svg(figure, name, title)


def line_svg(row: Row, look: Look, frozen: Row | None, *, name: str) -> str:
    """One line: disturbed, the same undisturbed (dotted), and in grey the line that does not adapt."""
    own, plain = curve_of(row, look), curve_of(row, look, "undisturbed_curve")
    grey = None if frozen is None or frozen is row else curve_of(frozen, Look(FIXED[0]))
    with styled():
        figure, axis = panel()
        _prepare(axis, row, [own, plain, *([] if grey is None else [grey])])
        if grey is not None:
            axis.plot(grey.x, grey.mean, color=grey.look.colour, linewidth=1.2)
        _draw(axis, plain, {"color": look.colour, "linestyle": (0, (1.5, 1.8))}, band=False)
        _draw(axis, own, look.strokes())
        axis.set_title(row["rule"], loc="left", fontsize=11, color=INK)
        figure.subplots_adjust(left=0.16, right=0.97, bottom=0.2, top=0.88)
        return figure_svg(figure, name, f"{row['rule']}: error on validation rows against epochs")


def _prepare(axis: Axes, row: Row, curves: Sequence[Curve]) -> None:
    """Axes, the time of the disturbance, and the level of guessing."""
    axis.grid(True)
    percent = row["metric"] == "error"
    values = [float(one) for curve in curves for one in (*curve.low, *curve.high)]
    if percent:
        error_axis(axis, values)
    else:
        axis.set_ylim(0.0, 1.1 * max(one for one in values if np.isfinite(one)))
    axis.set_title("error on validation rows" if percent else f"{row['metric']} on validation rows", loc="left", fontsize=11)
    axis.set_xlim(0.5, row["epochs"] + 0.5)
    axis.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
    axis.set_xlabel("epochs")
    place: Any = ("data", "axes fraction")
    if row["kind"] == "drift":
        axis.axvspan(row["epoch"], row["epochs"], color=MUTED, alpha=0.12, linewidth=0)
    else:
        axis.axvline(row["epoch"], color=MUTED, linewidth=1.0, linestyle=(0, (3.0, 2.0)))
    axis.annotate(
        row["kind"],
        (row["epoch"], 1.0),
        xycoords=place,
        xytext=(3, -10),
        textcoords="offset points",
        fontsize=10,
        color=MUTED,
    )
    chance = row["chance_error"]
    low, high = axis.get_ylim()
    if percent and low <= chance <= high:
        axis.axhline(chance, color=MUTED, linewidth=0.9, linestyle=(0, (1.0, 2.5)))
        axis.annotate(
            "chance",
            (0.0, chance),
            xycoords=("axes fraction", "data"),
            xytext=(3, 3),
            textcoords="offset points",
            fontsize=10,
            color=MUTED,
        )


def _draw(axis: Axes, curve: Curve, strokes: dict[str, Any], *, band: bool = True) -> None:
    known = np.isfinite(curve.mean)
    x, mean = curve.x[known], curve.mean[known]
    if not x.size:
        return
    if band:
        axis.fill_between(x, curve.low[known], curve.high[known], color=strokes["color"], alpha=0.14, linewidth=0)
    marked = np.unique(np.append(np.arange(curve.look.marker % 3, len(x), max(1, len(x) // 5)), len(x) - 1))
    shown = {"markevery": marked.tolist(), "markersize": 5.0, "markeredgewidth": 1.3} if "marker" in strokes else {}
    axis.plot(x, mean, linewidth=1.8, **strokes, **shown)


def _label_ends(axis: Axes, curves: Sequence[Curve]) -> None:
    """Names right of the lines' ends, in the lines' order, moved apart where they would cover each other."""
    ends = [(curve, float(curve.mean[np.isfinite(curve.mean)][-1])) for curve in curves if np.isfinite(curve.mean).any()]
    axis.figure.canvas.draw()
    to_share = axis.transData + axis.transAxes.inverted()
    heights = [float(to_share.transform((1.0, end))[1]) for _, end in ends]
    order = sorted(range(len(ends)), key=lambda i: heights[i])
    for i, height in zip(order, spread_apart([heights[i] for i in order], LABEL_GAP), strict=True):
        curve, end = ends[i]
        axis.annotate(
            curve.label,
            (float(curve.x[-1]), end),
            xycoords="data",
            xytext=(1.025, height),
            textcoords="axes fraction",
            fontsize=10.5,
            color=curve.look.colour,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": curve.look.colour, "linewidth": 0.7, "shrinkA": 1.0, "shrinkB": 2.0},
        )


def spread_apart(heights: Sequence[float], gap: float) -> list[float]:
    """Heights in rising order, moved as little as a sweep up and down takes so that neighbours are `gap` apart, all above 0."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, 0.0 if not placed else placed[-1] + gap))
    limit = max(1.0, gap * (len(placed) - 1))
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    return placed
