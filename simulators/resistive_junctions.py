"""Newton's method for resistive networks with real diodes, as kernels on the two classes of nodes that no conductance joins.

The steady state is the minimum of the co-content

    P(v) = sum over resistors of 1/2 g dv^2 + sum over diodes of n Vt Is (exp(u / (n Vt)) - 1 - u / (n Vt)) - sum of I v

with u the forward voltage of a diode. P is convex, and no conductance joins two nodes of the odd layers, nor two of the even
ones. While its neighbours are held, a node's voltage is therefore known in closed form: with q the current that flows into it at
0 V, G its conductance and a diode of sign s (+1 keeps v >= 0),

    G v - s Is (exp(-s v / (n Vt)) - 1) = q,   v = -s n Vt (b - W(a exp(b))),   a = Is / (G n Vt),   b = (Is - s q) / (G n Vt)

Lambert's W is evaluated as Wright's omega(c) = W(exp(c)), so that no exponential of a voltage is ever taken: nothing overflows,
for any start and any n. The nodes of the larger of the two classes are put in exactly, and Newton's method works on the smaller
class alone (the outputs, where there is one hidden layer), on a convex function whose curvature the linear conductances bound.
Its steps are made in the current q of a node, not in its voltage: where a step would drive a diode far into conduction the
voltage grows with the logarithm of the step, which is what circuit simulators limit junctions for. A step is made shorter until
P falls, so that a settling cannot diverge; near the minimum all are full ones, and the imbalance of the currents squares with
each. Where P has no upward curvature, as a negative nudge may make it, an exact minimisation over either class in turn (block
coordinate descent) takes the place of the step.
"""

import math

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel

Float = NDArray[np.float64]

HALVINGS = 40
"""How often a Newton step is halved before it is left out."""


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
def _nodes(
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
            v[i] = -signs[i] * slope * z
            y[i] = omega


@kernel
def _content(
    drive: Float, siemens: Float, saturations: Float, signs: NDArray[np.int8], slope: float, v: Float, y: Float
) -> float:
    """Co-content of nodes without what joins them to each other."""
    total = 0.0
    for i in range(v.size):
        total += v[i] * (0.5 * siemens[i] * v[i] - drive[i])
        if signs[i] != 0:
            z = -signs[i] * v[i] / slope
            total += slope * (siemens[i] * slope * y[i] - saturations[i] * (1.0 + z))
    return total


@kernel
def _factorise(matrix: Float) -> bool:
    """Cholesky factor in the lower triangle, in place; False where the matrix is not positive definite."""
    for i in range(matrix.shape[0]):
        for j in range(i):
            matrix[i, j] = (matrix[i, j] - np.dot(matrix[i, :j], matrix[j, :j])) / matrix[j, j]
        left = matrix[i, i] - np.dot(matrix[i, :i], matrix[i, :i])
        if not left > 0.0:
            return False
        matrix[i, i] = math.sqrt(left)
    return True


@kernel
def _solve(factor: Float, right: Float) -> None:
    """Solve with a Cholesky factor, in place."""
    size = right.size
    for i in range(size):
        right[i] = (right[i] - np.dot(factor[i, :i], right[:i])) / factor[i, i]
    for i in range(size - 1, -1, -1):
        right[i] /= factor[i, i]
        for j in range(i):
            right[j] -= factor[i, j] * right[i]


@kernel
def descend_junctions(
    couplings: Float,
    siemens: tuple[Float, Float],
    saturations: tuple[Float, Float],
    signs: tuple[NDArray[np.int8], NDArray[np.int8]],
    slope: float,
    drives: tuple[Float, Float],
    volts: tuple[Float, Float],
    steps: int,
    tolerance: float,
    residual: Float,
) -> int:
    """Settle in place; return the largest number of steps a sample took.

    Of each pair of arguments the first is of the smaller class of nodes, m of them, the second of the larger, n; everything of a
    layer carries its factor in P.

    Parameters
    ----------
    couplings : ndarray, shape (m, n)
        What a node passes to one of the other class, in siemens.
    siemens : pair of ndarray, (m,) and (n,)
        G of each node, the nudge's and the junctions' own parallel conductance within it.
    saturations, signs : pair of ndarray, (m,) and (n,)
        Saturation current of each node's diode in amperes, and its sign; 0 for none.
    slope : float
        n Vt in volts.
    drives : pair of ndarray, (batch, m) and (batch, n)
        Currents that do not change.
    volts : pair of ndarray, (batch, m) and (batch, n)
        Where the circuit is, of which only the first counts; where it ends.
    steps : int
        Newton steps at most.
    tolerance : float
        Stop a sample when the currents into no node miss balance by more than this times its G, in volts.
    residual : ndarray, shape (batch,)
        Out: that imbalance, in volts.
    """
    few, many = couplings.shape
    most = 0
    logarithms = (np.zeros(few), np.zeros(many))
    for i in range(few):
        if signs[0][i] != 0:
            logarithms[0][i] = math.log(saturations[0][i] / (siemens[0][i] * slope))
    for i in range(many):
        if signs[1][i] != 0:
            logarithms[1][i] = math.log(saturations[1][i] / (siemens[1][i] * slope))
    turned = np.ascontiguousarray(couplings.T)
    scaled = np.empty((few, many))
    hessian = np.empty((few, few))
    q, trial_q, direction, gradient = np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    v, trial_v, y, trial_y = np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    other_q, other_v, other_y = np.empty(many), np.empty(many), np.empty(many)
    for b in range(residual.size):
        held, other_held = drives[0][b], drives[1][b]
        v[:] = volts[0][b]
        residual[b] = 0.0
        for step in range(steps + 1):
            # exact minimisation over the larger class, the smaller, and the larger again
            other_q[:] = np.dot(turned, v) + other_held
            _nodes(other_q, siemens[1], saturations[1], logarithms[1], signs[1], slope, other_v, other_y)
            if few == 0:
                break
            if step == 0:
                q[:] = np.dot(couplings, other_v) + held
                _nodes(q, siemens[0], saturations[0], logarithms[0], signs[0], slope, v, y)
                other_q[:] = np.dot(turned, v) + other_held
                _nodes(other_q, siemens[1], saturations[1], logarithms[1], signs[1], slope, other_v, other_y)
            gradient[:] = q - np.dot(couplings, other_v) - held
            worst = 0.0
            for i in range(few):
                missing = abs(gradient[i]) / siemens[0][i]
                # written so that an imbalance that is not a number sticks
                if not missing <= worst:
                    worst = missing
            residual[b] = worst
            if worst <= tolerance or step == steps:
                break
            most = max(most, step + 1)
            # the larger class moves along with the smaller: Schur complement of its diagonal block
            for j in range(many):
                scaled[:, j] = couplings[:, j] / (siemens[1][j] * (1.0 + other_y[j]))
            np.dot(scaled, turned, hessian)
            for i in range(few):
                for j in range(few):
                    hessian[i, j] = -hessian[i, j]
                hessian[i, i] += siemens[0][i] * (1.0 + y[i])
            direction[:] = -gradient
            moved = False
            if _factorise(hessian):
                _solve(hessian, direction)
                descent = np.dot(gradient, direction)
                content = _content(held, siemens[0], saturations[0], signs[0], slope, v, y)
                content += _content(other_held, siemens[1], saturations[1], signs[1], slope, other_v, other_y)
                content -= np.dot(np.dot(couplings, other_v), v)
                size = abs(content)
                for i in range(few):
                    size += siemens[0][i] * v[i] * v[i]
                for i in range(few):
                    direction[i] *= siemens[0][i] * (1.0 + y[i])  # from voltages to currents
                length = 1.0
                for _ in range(HALVINGS):
                    trial_q[:] = q + length * direction
                    _nodes(trial_q, siemens[0], saturations[0], logarithms[0], signs[0], slope, trial_v, trial_y)
                    other_q[:] = np.dot(turned, trial_v) + other_held
                    _nodes(other_q, siemens[1], saturations[1], logarithms[1], signs[1], slope, other_v, other_y)
                    trial = _content(held, siemens[0], saturations[0], signs[0], slope, trial_v, trial_y)
                    trial += _content(other_held, siemens[1], saturations[1], signs[1], slope, other_v, other_y)
                    trial -= np.dot(np.dot(couplings, other_v), trial_v)
                    # the last steps change the content by less than its rounding
                    if trial <= content + 1e-4 * length * descent + 1e-14 * size:
                        moved = True
                        break
                    length *= 0.5
            if moved:
                q[:], v[:], y[:] = trial_q, trial_v, trial_y
            else:
                q[:] = q - gradient
                _nodes(q, siemens[0], saturations[0], logarithms[0], signs[0], slope, v, y)
        volts[0][b] = v
        volts[1][b] = other_v
    return most
