"""What one settling of a layered Hopfield network takes: events, passes and time."""

from collections.abc import Mapping

from inmaterio.devices.converters import Converter
from inmaterio.devices.ledger import Ledger
from inmaterio.simulators.capabilities import Clamp, Nudge
from inmaterio.simulators.hopfield_description import HopfieldDescription
from inmaterio.simulators.hopfield_nudge import is_complex


def charge_settling(
    ledger: Ledger,
    role: str,
    description: HopfieldDescription,
    heat: Mapping[str, float],
    *,
    steps: int,
    batch: int,
    nudge: Nudge | Clamp | None,
    nodes: int,
    reads: int,
    input_dac: Converter,
    state_adc: Converter,
    pooled: int = 0,
) -> float:
    """Count what one settling of a batch takes, and say how long it took.

    A complex settling is one pass. Real and imaginary part of a state are converted side by side.

    Parameters
    ----------
    ledger : Ledger
    role : str
        Under which it is counted.
    description : HopfieldDescription
    heat : mapping of str to float
        Joules dissipated in the array of each parameter, of the whole batch.
    steps : int
        Updates made.
    batch : int
    nudge : Nudge, Clamp or None
    nodes : int
        States of a sample that were read in all, at `reads` times.
    reads : int
    input_dac, state_adc : Converter
    pooled : int
        Drives that circuits of pooling windows take, with an amplifier each; 0 where there are none.

    Returns
    -------
    float
        Modelled time, s.
    """
    widths = description.widths
    converting = (1 + reads) * description.seconds_per_conversion
    seconds = steps * description.seconds_per_update
    for name, joules in heat.items():
        ledger.count(role, f"array {name}", "ohmic_joule", joules)
    ledger.count(role, "neurons", "amplifier_second", (seconds + converting) * sum(widths[1:]) * batch)
    if pooled:
        ledger.count(role, "pooling", "amplifier_second", (seconds + converting) * pooled * batch)
    ledger.count(role, "input DAC", input_dac.event("dac"), batch * widths[0])
    if nudge is not None:
        ledger.count(role, "nudge DAC", input_dac.event("dac"), batch * widths[-1])
    parts = 2 if is_complex(nudge) else 1
    ledger.count(role, "state ADC", state_adc.event("adc"), parts * batch * nodes)
    for name, amount in (("device_pass", batch), ("step", batch * steps), ("sample", batch if nudge is None else 0)):
        ledger.tally(role, name, amount)
    return batch * (seconds + converting)
