"""What went on in a spiking chip while a batch was presented, counted, and which of it is charged.

synaptic_event, graded_synaptic_event
    Synapses of weight other than zero that a spike reaches, as it is *sent*: a chip reads the synapses of a spike when it comes,
    and what they add waits in the neuron. Events that would arrive after the last step are therefore charged; `activity` has the
    number of those that arrive in time beside it. An input whose amplitude is not 1 makes graded ones, which need a
    multiplication.
neuron_update_active, neuron_update_idle
    Every neuron is updated in every step, outputs too. An update is active where the sum of the synaptic events that arrive in
    that step is not zero, or the neuron spikes.
spike
    Made by a neuron, whether it gets anywhere or not.
hop
    A spike on its way from one layer to the next, inputs included, takes `hops_per_spike` of them. This is a model: on a chip
    their number depends on where layers are placed.
membrane_read
    One per output neuron and step where the readout is of membranes, and one per neuron and step where the host asks for all.
synapse_write, byte_sram
    Words of synapse memory written; bytes of it read back.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.spiking_description import SpikingDescription
from inmaterio.simulators.spiking_records import (
    ACTIVE,
    DELIVERED,
    DELIVERED_GRADED,
    DROPPED,
    EVENTS,
    MESSAGES,
    OVER_CAPACITY,
    SENT,
    SENT_GRADED,
    SPIKED,
    WAITING,
    Results,
)

Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Activity:
    """What went on while a batch was presented. Per sample; layers are those after the input, projections those of them.

    Attributes
    ----------
    scores : ndarray, shape (batch, outputs)
    sent, delivered : ndarray of int, shape (batch, L)
        Synaptic events of the synapses into each layer, recurrent ones included, graded ones included: as sent, which is
        what is charged, and those of them that arrive within the steps.
    graded : ndarray of int, shape (batch, L)
        Those of the events sent that need a multiplication.
    active, spikes : ndarray of int, shape (batch, L)
        Active updates of neurons; spikes of neurons.
    messages : ndarray of int, shape (batch, L)
        Spikes that came over the link into each layer, inputs first.
    over_capacity, dropped, waiting : ndarray of int, shape (batch, L)
        Spikes that a layer's link had no room for, lost on the way, or still held when the steps were over.
    """

    scores: Array
    sent: Counts
    delivered: Counts
    graded: Counts
    active: Counts
    spikes: Counts
    messages: Counts
    over_capacity: Counts
    dropped: Counts
    waiting: Counts


def activity_of(results: Results, scores: Array) -> Activity:
    """The counts of a run."""
    layers, counts = results.layer_counts, results.layer_counts.shape[1]
    synapses = results.synapse_counts[:, :counts] + results.synapse_counts[:, counts:]
    graded = synapses[:, :, SENT_GRADED]
    return Activity(
        scores=scores,
        sent=synapses[:, :, SENT] + graded,
        delivered=synapses[:, :, DELIVERED] + synapses[:, :, DELIVERED_GRADED],
        graded=graded,
        active=layers[:, :, ACTIVE],
        spikes=layers[:, :, SPIKED],
        messages=_messages(results),
        over_capacity=layers[:, :, OVER_CAPACITY],
        dropped=layers[:, :, DROPPED],
        waiting=layers[:, :, WAITING],
    )


def counted_events(about: SpikingDescription, results: Results, *, membranes: bool) -> list[tuple[str, str, float]]:
    """Component, event and amount of all that a run of a batch did; `membranes`: whether all were asked for."""
    widths, layers = about.widths[1:], len(about.widths) - 1
    steps = len(results.scores) * about.total_steps
    synapses, neurons = results.synapse_counts.sum(axis=0), results.layer_counts.sum(axis=0)
    messages = _messages(results).sum(axis=0)
    found: list[tuple[str, str, float]] = []
    for k, width in enumerate(widths):
        recurrent = about.recurrent and k < layers - 1
        for name, row in ((f"weight_{k + 1}", k), *(((f"recurrent_weight_{k + 1}", layers + k),) if recurrent else ())):
            found.append((name, "synaptic_event", int(synapses[row, SENT])))
            if synapses[row, SENT_GRADED]:
                found.append((name, "graded_synaptic_event", int(synapses[row, SENT_GRADED])))
        active = int(neurons[k, ACTIVE])
        found.append((f"neurons {k + 1}", "neuron_update_active", active))
        found.append((f"neurons {k + 1}", "neuron_update_idle", steps * width - active))
        found.append((f"link {k + 1}", "hop", int(messages[k]) * about.hops_per_spike))
        if k < layers - 1 or about.spiking_outputs:
            found.append((f"neurons {k + 1}", "spike", int(neurons[k, SPIKED])))
    read = sum(widths) if membranes else 0 if about.spiking_outputs else widths[-1]
    return [*found, ("membranes", "membrane_read", steps * read)] if read else found


def _messages(results: Results) -> Counts:
    """Spikes on the link into each layer (batch, L): the events of the inputs, then what each layer's link carried."""
    return np.concatenate([results.synapse_counts[:, :1, EVENTS], results.layer_counts[:, :-1, MESSAGES]], axis=1)
