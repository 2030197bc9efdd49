"""What no figure of energy contains: the lists that every report prints beside its joules."""

from inmaterio.experiments.energy_estimate import EnergyEstimate

NOT_MODELLED = (
    "Clock generation and distribution, control logic and instruction fetch: a digital operation is priced as its bare "
    "arithmetic unit, so digital baselines are priced too low rather than too high.",
    "Leakage and standby power of anything but the amplifiers counted as events.",
    "Power conversion, cooling and anything else between the wall and the chip.",
    "Wires: charging of array lines, voltage drop along them, on-chip and off-chip links.",
    "Voltage references, bias generation, digital interfaces of converters and their calibration.",
    "Static power of the drivers that hold the input lines at their voltages while a network settles.",
    "Detection that a network has settled: it is taken to be known when to read.",
    "Sharing of A/D converters: one per node is assumed, all working in parallel; sharing takes multiplexers and time.",
    "How many pulses an outer product of several rows really takes, and how many a change of one device: each device is "
    "counted as programmed once per update.",
    "Write endurance: devices wear out, and the number of updates is not held against it.",
    "Half-selected devices and the verification reads of a programming scheme, unless a simulator counts them as events.",
    "DRAM refresh and background power; reading the data set from storage.",
    "Differences of technology node between rows: figures stand at the node of their source and are not scaled to a common one.",
    "The time a digital host takes: modelled seconds are the substrate's alone.",
    "Making, testing and idling the hardware; choosing hyperparameters.",
)
"""What no estimate of this package contains, in plain sentences for reports."""

ANY_HARDWARE = (
    "Clock generation",
    "Power conversion",
    "DRAM refresh",
    "Differences of technology node",
    "The time a digital host",
    "Making, testing",
)
"""Beginnings of the sentences of `NOT_MODELLED` that hold for spiking chips too, and for digital networks beside them."""

SPIKING_NOT_MODELLED = (
    "Where neurons lie on a chip: hops are a stated number for every spike (hops_per_spike), and a spike that goes to several "
    "cores is not counted once for each.",
    "Cores, and limits of fan-in, fan-out and tables: nothing checks that a network fits, or counts the neurons and synapses "
    "that a chip would have to double.",
    "Integer membranes and their saturation (Loihi's have 24 bits), synaptic currents with a time constant of their own, "
    "adaptive thresholds.",
    "Of a learning engine on the chip, where a rule was asked to run on one: its microcode, and moving errors to it.",
    "Time within a step: all arrivals of a step count at once.",
    "The host's link: sending input spikes to the chip and fetching what it answers.",
    "Leakage, static power and clocks of the chip: static power stands beside published figures, in no total.",
    "Memory outside the chip.",
    *(sentence for sentence in NOT_MODELLED if sentence.startswith(ANY_HARDWARE)),
)
"""What no figure of a spiking network contains, in plain sentences."""

SPIKING_EVENTS = ("synaptic_event", "synapse_write")
"""Events of which an estimate has one when its substrate is a spiking chip."""


def not_modelled(whole: EnergyEstimate) -> tuple[str, ...]:
    """What is missing from an estimate: its unpriced events first, then `NOT_MODELLED`, or of a spiking chip its own list."""
    missing = tuple(
        f"{component}: {amount:.4g} x {event}, for which there is no cost." for component, event, amount in whole.unpriced
    )
    spiking = any(part.event in SPIKING_EVENTS for part in whole.parts)
    return missing + (SPIKING_NOT_MODELLED if spiking else NOT_MODELLED)
