"""The physical floor under the energy of an A/D conversion: thermal noise."""

from inmaterio.devices.validation import check_range
from inmaterio.experiments.energy_estimate import EnergyEstimate

BOLTZMANN = 1.380649e-23
"""J/K, exact (SI, 2019)."""


def conversion_floor(whole: EnergyEstimate, temperature_K: float = 300.0) -> float:
    """Thermal floor of the A/D conversions in an estimate: 8 k T SNR each, SNR = 10^((6.02 bits + 1.76) / 10).

    Source: Murmann, ADC performance survey. No converter gets below it; a total that does is wrong.

    Returns
    -------
    float
        J; 0 when there are no conversions.
    """
    check_range("temperature", temperature_K, low=0.0, unit="K", low_open=True)
    floor = 0.0
    for part in whole.parts:
        kind, _, resolution = part.event.rpartition("_")
        if kind == "adc_conversion" and resolution[:-1].isdigit():
            snr = 10.0 ** ((6.02 * int(resolution[:-1]) + 1.76) / 10.0)
            floor += part.amount * 8.0 * BOLTZMANN * temperature_K * snr
    return floor
