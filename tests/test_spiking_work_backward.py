"""What single functions of a spiking chip's twin take: whole delays on the way back, layers that feed back on themselves.

Every sum is written out here, by events and by spectra; products of spectra are those that torch counts.
"""

from typing import Any

import numpy as np
import pytest
import torch
from test_spiking_work import counter_of_products

from inmaterio.simulators import delay_spectra
from inmaterio.simulators.delayed_synapses import sharp_kernels, sharp_synapses, spread_synapses
from inmaterio.simulators.host_work import PassWork, Work
from inmaterio.simulators.spiking_surrogate import Neuron, fire_recurrent

BATCH, TAPS, SENDERS, RECEIVERS = 4, 5, 6, 3
STEPS = [7, 40]
"""Of one block, and of several."""

SENT, GRADED = 9, 2
"""Spikes that are sent, and how many of them are not of amplitude 1."""


def spikes_of(steps: int) -> torch.Tensor:
    """(steps, batch, senders)."""
    spikes = np.zeros((steps, BATCH, SENDERS), np.float32)
    places = np.random.default_rng(0).choice(spikes.size, SENT, replace=False)
    spikes.reshape(-1)[places] = [2.0] * GRADED + [1.0] * (SENT - GRADED)
    return torch.from_numpy(spikes).requires_grad_()


def matrix(receivers: int, senders: int, low: float, high: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).uniform(low, high, (receivers, senders)).astype(np.float32))


def words_of_spectra(steps: int, senders: int, receivers: int, *part: str) -> int:
    """Words of the named parts of the way back, added up."""
    plan = delay_spectra.make_plan(steps, TAPS, senders, receivers)
    assert (plan.blocks > 1) == (steps == max(STEPS))
    of_sample, of_kernels = 2 * plan.frequencies * plan.blocks, 2 * plan.frequencies * senders * receivers
    words = {
        # signals and kernels read, their spectra stored
        "gradient": BATCH * receivers * (steps + of_sample),
        "spikes": BATCH * senders * (steps + of_sample),
        "kernels": TAPS * senders * receivers + of_kernels,
        # both spectra read, their product stored and read, the gradient of the spikes stored
        "back": BATCH * of_sample * receivers + of_kernels + 2 * BATCH * of_sample * senders + BATCH * steps * senders,
        # both spectra read, their product stored and read, the gradient of the kernels stored
        "learn": BATCH * of_sample * (senders + receivers) + 2 * of_kernels + TAPS * senders * receivers,
    }
    return sum(words[one] for one in part)


def back_through(outputs: torch.Tensor, inputs: list[torch.Tensor]) -> int:
    """Go back to the inputs; multiply-accumulates of matrix products, as torch counts them."""
    with counter_of_products() as counter:
        torch.autograd.grad(outputs.sum(), inputs)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("steps", STEPS)
def test_back_through_whole_delays(steps: int, way: str) -> None:
    spikes, work = spikes_of(steps), PassWork()
    weight = matrix(RECEIVERS, SENDERS, 0.3, 0.8).requires_grad_()
    delay = matrix(RECEIVERS, SENDERS, 0.0, TAPS - 1.0).round()
    bias = torch.zeros(RECEIVERS, requires_grad=True)
    products = back_through(sharp_synapses(spikes, weight, delay, bias, TAPS, work), [spikes, weight, bias])
    synapses, outputs = SENDERS * RECEIVERS, steps * BATCH * RECEIVERS
    assert products > 0
    wanted = Work()
    wanted.add(operations=outputs, words=outputs + RECEIVERS)  # biases
    wanted.add(words=2 * synapses + TAPS * synapses)  # kernels are made from weights and delays
    wanted.add(macs=products, words=words_of_spectra(steps, SENDERS, RECEIVERS, "gradient", "kernels", "back"))
    if way == "events":
        # spikes, gradients and delays are read, the sums stored; each spike adds one gradient per receiver
        wanted.add(macs=GRADED * RECEIVERS, operations=(SENT - GRADED) * RECEIVERS)
        wanted.add(words=steps * BATCH * SENDERS + outputs + 2 * synapses)
    else:
        wanted.add(words=words_of_spectra(steps, SENDERS, RECEIVERS, "spikes", "learn"))
        wanted.add(words=3 * synapses)  # at each delay, which is read, a number is read and stored
    assert work.backward == wanted


@pytest.mark.parametrize("steps", STEPS)
def test_back_through_whole_delays_to_one_of_both(steps: int, way: str) -> None:
    """To the weights alone, as in a first layer, or to the spikes alone: nothing of the other is counted."""
    delay, bias = matrix(RECEIVERS, SENDERS, 0.0, TAPS - 1.0).round(), torch.zeros(RECEIVERS)
    weight, spikes = matrix(RECEIVERS, SENDERS, 0.3, 0.8), spikes_of(steps)
    synapses, outputs = SENDERS * RECEIVERS, steps * BATCH * RECEIVERS
    work, free = PassWork(), weight.clone().requires_grad_()
    products = back_through(sharp_synapses(spikes.detach(), free, delay, bias, TAPS, work), [free])
    wanted = Work()
    if way == "events":
        assert products == 0
        wanted.add(macs=GRADED * RECEIVERS, operations=(SENT - GRADED) * RECEIVERS)
        wanted.add(words=steps * BATCH * SENDERS + outputs + 2 * synapses)
    else:
        learnt = words_of_spectra(steps, SENDERS, RECEIVERS, "gradient", "spikes", "learn")
        wanted.add(macs=products, words=learnt + 3 * synapses)
    assert work.backward == wanted
    work = PassWork()
    products = back_through(sharp_synapses(spikes, weight, delay, bias, TAPS, work), [spikes])
    words = words_of_spectra(steps, SENDERS, RECEIVERS, "gradient", "kernels", "back") + (2 + TAPS) * synapses
    assert work.backward == Work(macs=products, words=words)


@pytest.mark.parametrize("steps", STEPS)
def test_back_through_spread_delays(steps: int, way: str) -> None:
    spikes, work = spikes_of(steps), PassWork()
    kernels = torch.full((TAPS, SENDERS, RECEIVERS), 0.1, requires_grad=True)
    products = back_through(spread_synapses(spikes, kernels, torch.zeros(RECEIVERS), work), [spikes, kernels])
    wanted = Work()
    wanted.add(macs=products, words=words_of_spectra(steps, SENDERS, RECEIVERS, "gradient", "back"))
    if way == "events":
        wanted.add(words=words_of_spectra(steps, SENDERS, RECEIVERS, "kernels"))
        wanted.add(macs=GRADED * TAPS * RECEIVERS, operations=(SENT - GRADED) * TAPS * RECEIVERS)
        wanted.add(words=steps * BATCH * (SENDERS + RECEIVERS) + TAPS * SENDERS * RECEIVERS)
    else:  # the spectra of spikes and kernels are kept from the way forward
        wanted.add(words=words_of_spectra(steps, SENDERS, RECEIVERS, "learn"))
    assert work.backward == wanted


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("steps", STEPS)
def test_a_layer_that_feeds_back_on_itself(steps: int, whole: bool, way: str) -> None:
    """Drive makes `sent` spikes, and what they add is too little for more."""
    neurons, sent, work = RECEIVERS, 5, PassWork()
    drive = torch.zeros(steps, BATCH, neurons)
    for place in range(sent):
        drive[place, place % BATCH, place % neurons] = 2.0
    drive.requires_grad_()
    weight = matrix(neurons, neurons, 0.001, 0.01)
    delay = matrix(neurons, neurons, 0.0, TAPS - 1.0).round()
    neuron = Neuron(np.full(neurons, 0.5), np.ones(neurons), soft=False, strict=False, refractory=0)
    kernels: Any = sharp_kernels(weight, delay, TAPS) if whole else torch.full((TAPS, neurons, neurons), 0.01)
    kernels.requires_grad_()
    spikes, _ = fire_recurrent(drive, neuron, kernels, (weight, delay) if whole else None, work)
    assert int(spikes.detach().sum()) == sent
    size, held = steps * BATCH * neurons, TAPS * neurons**2
    wanted = Work()
    wanted.add(macs=size, operations=2 * size, words=3 * size)  # leak; comparison, reset; drive read, spikes and membranes stored
    if whole:  # weights and delays are read, the kernels for the way back stored
        wanted.add(operations=sent * neurons, words=2 * neurons**2 + held)
    else:
        wanted.add(operations=sent * TAPS * neurons, words=held)
    assert work.forward == wanted
    products = back_through(spikes, [drive, kernels])
    wanted = Work()
    wanted.add(macs=2 * size, operations=(3 + 1) * size, words=4 * size)  # slope, leak, reset
    wanted.add(macs=products, words=2 * size + held)  # to earlier steps, and the products of spectra
    if way == "events":
        assert products == size * TAPS * neurons
        wanted.add(operations=sent * TAPS * neurons, words=2 * size + held)
    else:
        assert products > size * TAPS * neurons
        wanted.add(words=words_of_spectra(steps, neurons, neurons, "gradient", "spikes", "learn"))
    assert work.backward == wanted
