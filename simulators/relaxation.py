"""Relaxation of a layered network with couplings between neighbouring layers.

Layer k = 1..L rests at

    s_k = f_k(a_k),   a_k = drive_k + W_k s_{k-1} + feedback_gain * W_{k+1}^T s_{k+1}

where ``drive_k`` is what does not change while the network settles: the bias, for the first layer the clamped input
through its array, and noise that is sampled and held. A nudge of strength beta acts on the last layer:

- ``mse``: inside the response, s_L = f(a_L - beta (s_L - target)), so that the rest point is a stationary point of
  E + beta C with C = 1/2 |s_L - target|^2. Where f is linear the equation is solved for s_L at each update,
  s_L = (a_L + beta target) / (1 + beta);
- ``cross_entropy``: behind the response, s_L = f(a_L) - slope * beta (s_L - target), likewise solved for s_L at each update.
  To first order in beta this is the nudge of the loss whose dC/ds_L = slope * (s_L - target) / f'(a_L), for the sigmoid
  with slope 4 the binary cross-entropy;
- a clamp holds s_L at the target.

The place of the nudge decides which loss is descended; a test pins it.

The nudges are analytic in beta and in the states: nothing is conjugated and no modulus taken. With a complex beta, analytic
responses and complex buffers the network comes to rest at the analytic continuation of its real rest points (Laborieux and
Zenke, NeurIPS 2022).

All layers of a batch lie one behind the other in flat buffers, each block C-contiguous (batch, width), so that one
compiled kernel serves every depth.
"""

import math

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import fill_normals
from inmaterio.simulators.activations import LINEAR
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.hopfield_responses import respond, square_modulus

NO_NUDGE, MSE, CROSS_ENTROPY, CLAMP = 0, 1, 2, 3
SYNCHRONOUS, EVEN_ODD = 0, 1


@kernel
def _add_noise(drive: Array, noise: Array, first: int, std: float, neighbour: Array) -> None:
    """drive[b, i] += std * |neighbour[b]| * noise[b, first + i]: currents of many devices, each with its own read noise."""
    for b in range(drive.shape[0]):
        square = 0.0
        for j in range(neighbour.shape[1]):
            square += square_modulus(neighbour[b, j])
        scale = std * math.sqrt(square)
        for i in range(drive.shape[1]):
            drive[b, i] += scale * noise[b, first + i]


@kernel
def relax(
    state: Array,
    spare: Array,
    drive: Array,
    forward: Array,
    backward: Array,
    widths: NDArray[np.int64],
    activations: NDArray[np.int64],
    feedback_gain: float,
    schedule: int,
    damping: float,
    nudge: int,
    beta: complex,
    slope: float,
    target: Array,
    steps: int,
    tolerance: float,
    noise_std: float,
    forward_noise: Array,
    backward_noise: Array,
    noise_words: NDArray[np.uint64],
    samples: NDArray[np.int64],
    scratch: Array,
    square_sum: Array,
    residual: NDArray[np.float64],
    record: Array,
) -> int:
    """Relax in place; return the number of updates made.

    States, drives, couplings, targets and `beta` are all real or all complex, of one precision; everything else is real.

    Parameters
    ----------
    state : ndarray, shape (batch * sum(widths),)
        Where the network is; where it ends.
    spare : ndarray, like `state`
        Scratch of the synchronous schedule.
    drive : ndarray, like `state`
        What is held while the network settles.
    forward, backward : ndarray, flat
        W_k, k = 2..L, each (n_k, n_{k-1}), one behind the other, as met going up and going down. The same array where
        one device serves both directions.
    widths : ndarray of int64, shape (L,)
    activations : ndarray of int64, shape (L,)
        Codes of `activations.py`.
    feedback_gain : float
    schedule : int
        `SYNCHRONOUS`: all layers from the previous update's states. `EVEN_ODD`: odd layers, then even ones from the
        new odd ones; each half step minimises the energy exactly over its layers.
    damping : float
        In [0, 1): a node goes to (1 - damping) f + damping s. It moves no rest point, and settles couplings that are so
        asymmetric that nodes would overshoot for ever.
    nudge : int
        `NO_NUDGE`, `MSE`, `CROSS_ENTROPY` or `CLAMP`.
    beta, slope : float
        beta may be complex.
    target : ndarray, shape (batch, n_L)
    steps : int
        Updates at most.
    tolerance : float
        Stop when no node changed by more; negative: make all steps.
    noise_std : float
        Read noise of one weight per settling; 0 for none.
    forward_noise, backward_noise : ndarray, shape (batch, sum(widths)), or (0, 0) without noise
        Standard normals held through the settling.
    noise_words : ndarray of uint64, shape (2,) or (0,)
        Where given, the normals are drawn anew at each step from this key instead.
    samples : ndarray of int64, shape (batch,)
    scratch : ndarray, shape (2 * batch * max(widths),)
    square_sum : ndarray, shape (sum(widths),)
        Added to: sum over steps and batch of |s|^2 per node, which is what resistors dissipate by.
    residual : ndarray of float64, shape (batch,)
        Out: largest modulus of f - s of a node in the last update, which is its change where nothing is damped.
    record : ndarray, shape (steps, batch * sum(widths)) or (0, 0)
        Out: states after each update.
    """
    layers = widths.size
    batch = samples.size
    largest = widths.max()
    one = beta - beta + 1  # in the precision of the states
    now, then = state, spare
    done = 0
    for step in range(steps):
        if noise_words.size == 2:
            fill_normals(noise_words[0], noise_words[1], 2 * step, samples, forward_noise)
            fill_normals(noise_words[0], noise_words[1], 2 * step + 1, samples, backward_noise)
        measure = step == steps - 1 or tolerance >= 0.0
        if measure:
            residual[:] = 0.0
        if schedule == EVEN_ODD:
            then = now
        for half in range(2):
            if schedule == SYNCHRONOUS and half == 1:
                break
            state_start = 0
            weight_start = 0
            for k in range(layers):
                width = widths[k]
                size = batch * width
                skipped = (schedule == EVEN_ODD and k % 2 != half) or (nudge == CLAMP and k == layers - 1)
                if not skipped:
                    flat = scratch[:size]
                    pre = flat.reshape(batch, width)
                    held = drive[state_start : state_start + size]
                    if k > 0:
                        below_width = widths[k - 1]
                        below = now[state_start - batch * below_width : state_start].reshape(batch, below_width)
                        weight = forward[weight_start - width * below_width : weight_start].reshape(width, below_width)
                        np.dot(below, weight.T, pre)
                        if noise_std > 0.0:
                            _add_noise(pre, forward_noise, state_start // batch, noise_std, below)
                        for i in range(size):
                            flat[i] += held[i]
                    elif layers == 1:
                        flat[:] = held
                    if k < layers - 1:
                        above_width = widths[k + 1]
                        above = now[state_start + size : state_start + size + batch * above_width].reshape(batch, above_width)
                        weight = backward[weight_start : weight_start + above_width * width].reshape(above_width, width)
                        first = k == 0
                        other = flat if first else scratch[batch * largest : batch * largest + size]
                        feedback = other.reshape(batch, width)
                        np.dot(above, weight, feedback)
                        if noise_std > 0.0:
                            _add_noise(feedback, backward_noise, state_start // batch, noise_std, above)
                        if first:
                            for i in range(size):
                                flat[i] = held[i] + feedback_gain * flat[i]
                        else:
                            for i in range(size):
                                flat[i] += feedback_gain * other[i]
                    old = now[state_start : state_start + size]
                    if k == layers - 1 and nudge == MSE:
                        wanted = target.reshape(size)
                        if activations[k] == LINEAR:
                            for i in range(size):
                                flat[i] = (flat[i] + beta * wanted[i]) / (one + beta)
                        else:
                            for i in range(size):
                                flat[i] -= beta * (old[i] - wanted[i])
                    respond(activations[k], flat)
                    if k == layers - 1 and nudge == CROSS_ENTROPY:
                        wanted = target.reshape(size)
                        for i in range(size):
                            flat[i] = (flat[i] + slope * beta * wanted[i]) / (one + slope * beta)
                    if measure:
                        for b in range(batch):
                            change = residual[b]
                            for i in range(b * width, (b + 1) * width):
                                # written so that a change that is not a number sticks
                                difference = abs(flat[i] - old[i])
                                if not difference <= change:
                                    change = difference
                            residual[b] = change
                    if damping > 0.0:
                        for i in range(size):
                            flat[i] += damping * (old[i] - flat[i])
                    new = then[state_start : state_start + size]
                    new[:] = flat
                elif schedule == SYNCHRONOUS:
                    then[state_start : state_start + size] = now[state_start : state_start + size]
                state_start += size
                if k < layers - 1:
                    weight_start += widths[k + 1] * width
        now, then = then, now
        start = 0
        node = 0
        for k in range(layers):
            width = widths[k]
            sums = square_sum[node : node + width]
            for _ in range(batch):
                row = now[start : start + width]
                for i in range(width):
                    sums[i] += square_modulus(row[i])
                start += width
            node += width
        if record.shape[0] > 0:
            record[step] = now
        done = step + 1
        if tolerance >= 0.0 and residual.max() <= tolerance:
            break
    if schedule == SYNCHRONOUS and done % 2 == 1:
        state[:] = now
    return done
