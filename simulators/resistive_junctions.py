"""One node with a real diode, whose neighbours are held: its voltage in closed form, as kernels.

With q the current that flows into it at 0 V, G its conductance and a diode of sign s (+1 keeps v >= 0),

    G v - s Is (exp(-s v / (n Vt)) - 1) = q,   v = -s n Vt (b - W(a exp(b))),   a = Is / (G n Vt),   b = (Is - s q) / (G n Vt)

Lambert's W is evaluated as Wright's omega(c) = W(exp(c)) with c = b + ln a, so that no exponential of a voltage is ever taken:
nothing overflows, for any start and any n.
"""

import math

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel

Float = NDArray[np.float64]


@kernel
def wright_omega(c: float) -> float:
    """The y > 0 with y + ln y = c.

    Iteration of fourth order of Fritsch, Shafer and Crowley (Communications of the ACM 16, 123, 1973).
    """
    if c < -40.0:
        return math.exp(c)  # y is below its own rounding in y + ln y
    if c < -1.0:
        y = math.exp(c)
        y = y / (1.0 + y)
    elif c < 2.5:
        y = math.exp(0.5 * (c - 1.0))
    else:
        y = c - math.log(c)
    for _ in range(2):
        rest = c - y - math.log(y)
        one = 1.0 + y
        term = 2.0 * one * (one + 2.0 / 3.0 * rest)
        y *= 1.0 + rest / one * (term - rest) / (term - 2.0 * rest)
    return y


@kernel
def balance_nodes(
    currents: Float,
    siemens: Float,
    saturations: Float,
    logarithms: Float,
    signs: NDArray[np.int8],
    slope: float,
    v: Float,
    y: Float,
) -> None:
    """Voltages of nodes that these currents flow into, and their omega: diode conductance over `siemens`."""
    for i in range(currents.size):
        if signs[i] == 0:
            v[i] = currents[i] / siemens[i]
            y[i] = 0.0
        else:
            unit = siemens[i] * slope
            b = (saturations[i] - signs[i] * currents[i]) / unit
            omega = wright_omega(b + logarithms[i])
            # b - omega loses digits where the diode conducts
            z = b - omega if omega < 1.0 else math.log(omega) - logarithms[i]
            if abs(z) < 1.0:
                # both lose some near 0 V; what is left of the balance there is small, and one step of Newton's method takes it
                z -= (z + (saturations[i] * math.expm1(z) + signs[i] * currents[i]) / unit) / (1.0 + omega)
            v[i] = -signs[i] * slope * z
            y[i] = omega


@kernel
def node_content(
    drive: Float, siemens: Float, saturations: Float, signs: NDArray[np.int8], slope: float, v: Float, y: Float
) -> float:
    """Co-content of nodes without what joins them to each other."""
    total = 0.0
    for i in range(v.size):
        total += v[i] * (0.5 * siemens[i] * v[i] - drive[i])
        if signs[i] != 0:
            z = -signs[i] * v[i] / slope
            if abs(z) < 1.0:
                total += slope * saturations[i] * (math.expm1(z) - z)
            else:
                total += slope * (siemens[i] * slope * y[i] - saturations[i] * (1.0 + z))
    return total


@kernel
def diode_logarithms(siemens: Float, saturations: Float, signs: NDArray[np.int8], slope: float) -> Float:
    """ln a of each node; 0 where it has no diode."""
    found = np.zeros(siemens.size)
    for i in range(siemens.size):
        if signs[i] != 0:
            found[i] = math.log(saturations[i] / (siemens[i] * slope))
    return found
