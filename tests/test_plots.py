"""Curves, and the numbers on their axes."""

import numpy as np
import pytest

from inmaterio.experiments.plots import Curve, Look, curves_svg, engineering, tick_label


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.21e-6, "3.21 µJ"),
        (999.6e-9, "1.00 µJ"),
        (1.0, "1.00 J"),
        (0.0, "0 J"),
        (12345.0, "12.3 kJ"),
        (-2.5e-3, "-2.50 mJ"),
        (np.nan, "–"),
    ],
)
def test_engineering_prefixes(value: float, text: str) -> None:
    assert engineering(value, "J") == text


def test_tick_labels_drop_zeros() -> None:
    assert [tick_label(value, "J") for value in (1e-6, 2.5e-3, 100.0)] == ["1 µJ", "2.5 mJ", "100 J"]
    assert tick_label(20000.0, "") == "20k"


def test_curves_with_nothing_to_draw_are_empty() -> None:
    nothing = np.full(3, np.nan)
    curve = Curve("a", Look(1), nothing, nothing, nothing, nothing)
    assert curves_svg([curve], name="a", title="t", x_label="x", y_label="y") == ""


@pytest.mark.parametrize("logarithmic", [False, True])
def test_curves_start_anywhere(logarithmic: bool) -> None:
    # A zero at the start cannot stand on a logarithmic axis; a single point is no reason to fail.
    x = np.array([0.0, 1e-9, 1e-3])
    curves = [Curve("a", Look(1), x, x, x, x), Curve("b", Look(2), x[1:2], x[1:2], x[1:2], x[1:2])]
    svg = curves_svg(
        curves, name="a", title="t", x_label="x", y_label="y", x_unit="J", logarithmic=logarithmic, percent=True, chance=0.9
    )
    assert svg.count("<svg") == 1
    assert "nan" not in svg
