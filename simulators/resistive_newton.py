"""Newton's method for resistive networks with real diodes, as kernels on the two classes of nodes that no conductance joins.

The steady state is the minimum of the co-content

    P(v) = sum over resistors of 1/2 g dv^2 + sum over diodes of n Vt Is (exp(u / (n Vt)) - 1 - u / (n Vt)) - sum of I v

with u the forward voltage of a diode. P is convex, and no conductance joins two nodes of the odd layers, nor two of the even
ones: while one class is held, each node of the other is known in closed form (`resistive_junctions`). The nodes of the larger
class are put in exactly, and Newton's method works on the smaller class alone (the outputs, where there is one hidden layer), on
a convex function whose curvature the linear conductances bound.

Its steps are made in the current q that flows into a node at 0 V, not in its voltage: where a step would drive a diode far into
conduction the voltage grows with the logarithm of the step, which is what circuit simulators limit junctions for. A step is made
shorter until P falls (or, where P changes by no more than its rounding, until the imbalance of the currents does), so that a
settling cannot diverge; near the minimum all are full ones, and the imbalance squares with each. Where P curves downwards, as a
negative nudge may make it, the nodes are held back for one step by conductances that make it curve upwards; P has several minima
then, and the one that is found is reached downhill from the start. Where no step makes P fall, an exact minimisation over either
class in turn (block coordinate descent) is made.
"""

import math

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.simulators.resistive_junctions import balance_nodes, diode_logarithms, node_content

Float = NDArray[np.float64]

HALVINGS = 40
"""How often a Newton step is halved before it is left out."""


@kernel
def _receive(couplings: Float, other_v: Float, held: Float, q: Float) -> None:
    """Currents into the nodes of a class at 0 V, from where the other class is."""
    np.dot(couplings, other_v, q)
    for i in range(q.size):
        q[i] += held[i]


@kernel
def _follow(
    couplings: Float,
    turned: Float,
    siemens: tuple[Float, Float],
    saturations: tuple[Float, Float],
    logarithms: tuple[Float, Float],
    signs: tuple[NDArray[np.int8], NDArray[np.int8]],
    slope: float,
    held: tuple[Float, Float],
    q: Float,
    v: Float,
    y: Float,
    other_v: Float,
    other_y: Float,
    gradient: Float,
) -> tuple[float, float, float]:
    """Put the larger class where its currents balance; return P, a sum of sizes that its rounding goes with, and the imbalance.

    `gradient` takes what flows out of the nodes of the smaller class and not into them, in amperes; the imbalance is the largest
    of it over G, in volts.
    """
    other_q = np.empty(other_v.size)
    _receive(turned, v, held[1], other_q)
    balance_nodes(other_q, siemens[1], saturations[1], logarithms[1], signs[1], slope, other_v, other_y)
    content = node_content(held[0], siemens[0], saturations[0], signs[0], slope, v, y)
    content += node_content(held[1], siemens[1], saturations[1], signs[1], slope, other_v, other_y)
    worst, size = 0.0, 0.0
    np.dot(couplings, other_v, gradient)
    for i in range(q.size):
        content -= gradient[i] * v[i]
        gradient[i] = q[i] - gradient[i] - held[0][i]
        missing = abs(gradient[i]) / siemens[0][i]
        # one that is not a number stays: nothing is larger than it
        if missing > worst or math.isnan(missing):
            worst = missing
        size += siemens[0][i] * v[i] * v[i]
    for j in range(other_v.size):
        size += siemens[1][j] * other_v[j] * other_v[j]
    return content, abs(content) + size, worst


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
def _schur(couplings: Float, turned: Float, siemens: Float, y: Float, other_siemens: Float, other_y: Float, out: Float) -> None:
    """Second derivative of P by the smaller class when the larger moves along: Schur complement of its diagonal block."""
    few, many = couplings.shape
    scaled = np.empty((few, many))
    for j in range(many):
        load = other_siemens[j] * (1.0 + other_y[j])
        for i in range(few):
            scaled[i, j] = -couplings[i, j] / load
    np.dot(scaled, turned, out)
    for i in range(few):
        out[i, i] += siemens[i] * (1.0 + y[i])


@kernel
def _newton_direction(hessian: Float, siemens: Float, y: Float, gradient: Float, direction: Float) -> bool:
    """Newton's direction in voltages; False where none can be found.

    Where P curves downwards the nodes are held back by conductances of their own, as small as will do.
    """
    few = gradient.size
    factor = np.empty((few, few))
    shift = 0.0
    while shift < 1e3:
        for i in range(few):
            for j in range(i + 1):
                factor[i, j] = hessian[i, j]
            factor[i, i] += shift * siemens[i] * (1.0 + y[i])
        if _factorise(factor):
            for i in range(few):
                direction[i] = -gradient[i]
            _solve(factor, direction)
            return True
        shift = max(4.0 * shift, 1e-3)
    return False


@kernel
def _level(
    couplings: Float,
    turned: Float,
    siemens: tuple[Float, Float],
    held: tuple[Float, Float],
    q: Float,
    v: Float,
    other_v: Float,
    other_y: Float,
    gradient: Float,
    tolerance: float,
    relative: float,
) -> tuple[float, float]:
    """Imbalance over G of the node where it is farthest from what it is to be, and what it is to be: see `descend_junctions`."""
    reach, sizes = np.empty(other_v.size), np.empty(q.size)
    # rounding of what a node receives, and of what its neighbours do
    np.dot(turned, np.abs(v), reach)
    for j in range(other_v.size):
        reach[j] = abs(other_v[j]) + (reach[j] + abs(held[1][j])) / (siemens[1][j] * (1.0 + other_y[j]))
    np.dot(couplings, reach, sizes)
    missing, allowed = 0.0, 0.0
    for i in range(q.size):
        here = abs(gradient[i]) / siemens[0][i]
        level = max(tolerance, relative * (sizes[i] + abs(q[i]) + abs(held[0][i])) / siemens[0][i])
        if i == 0 or here - level > missing - allowed or math.isnan(here):
            missing, allowed = here, level
        if math.isnan(here):
            break
    return missing, allowed


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
    relative: float,
    residual: Float,
    level: Float,
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
    tolerance, relative : float
        Stop a sample when the currents into no node miss balance by more than its G times `tolerance`, in volts, or `relative`
        of the sum of their sizes, those that move its neighbours included.
    residual, level : ndarray, shape (batch,)
        Out: that imbalance over G, of the node where it is farthest from what it was to be, and what it was to be; in volts.
    """
    few, many = couplings.shape
    most = 0
    logarithms = (
        diode_logarithms(siemens[0], saturations[0], signs[0], slope),
        diode_logarithms(siemens[1], saturations[1], signs[1], slope),
    )
    turned = np.ascontiguousarray(couplings.T)
    hessian = np.empty((few, few))
    q, v, y, gradient, direction = np.empty(few), np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    trial_q, trial_v, trial_y, trial_gradient = np.empty(few), np.empty(few), np.empty(few), np.empty(few)
    other_q, other_v, other_y = np.empty(many), np.empty(many), np.empty(many)
    for b in range(residual.size):
        held = (drives[0][b], drives[1][b])
        # exact minimisation over the larger class, the smaller, and the larger again
        _receive(turned, volts[0][b], held[1], other_q)
        balance_nodes(other_q, siemens[1], saturations[1], logarithms[1], signs[1], slope, other_v, other_y)
        _receive(couplings, other_v, held[0], q)
        balance_nodes(q, siemens[0], saturations[0], logarithms[0], signs[0], slope, v, y)
        content, size, worst = _follow(
            couplings, turned, siemens, saturations, logarithms, signs, slope, held, q, v, y, other_v, other_y, gradient
        )
        for step in range(steps + 1):
            residual[b], level[b] = _level(
                couplings, turned, siemens, held, q, v, other_v, other_y, gradient, tolerance, relative
            )
            if not residual[b] > level[b] or step == steps:
                break
            most = max(most, step + 1)
            _schur(couplings, turned, siemens[0], y, siemens[1], other_y, hessian)
            found = _newton_direction(hessian, siemens[0], y, gradient, direction)
            descent = np.dot(gradient, direction)
            length = 1.0
            for halving in range(HALVINGS + 1):
                block = halving == HALVINGS or not found
                for i in range(few):
                    # the step of a current is that of a voltage times the slope of one by the other
                    move = -gradient[i] if block else length * siemens[0][i] * (1.0 + y[i]) * direction[i]
                    trial_q[i] = q[i] + move
                balance_nodes(trial_q, siemens[0], saturations[0], logarithms[0], signs[0], slope, trial_v, trial_y)
                trial, trial_size, missing = _follow(
                    couplings,
                    turned,
                    siemens,
                    saturations,
                    logarithms,
                    signs,
                    slope,
                    held,
                    trial_q,
                    trial_v,
                    trial_y,
                    other_v,
                    other_y,
                    trial_gradient,
                )
                if block or trial <= content + 1e-4 * length * descent:
                    break
                # the last steps change the content by less than its rounding; there the imbalance must fall
                if trial <= content + 1e-10 * size and missing <= 0.5 * worst:
                    break
                length *= 0.5
            q[:], v[:], y[:], gradient[:] = trial_q, trial_v, trial_y, trial_gradient
            content, size, worst = trial, trial_size, missing
        volts[0][b] = v
        volts[1][b] = other_v
    return most
