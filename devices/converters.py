"""Converters between digital numbers and analog signals: noise, then clipping, then rounding to a uniform grid.

With b bits a converter has 2^b levels, the lowest at `low` and the highest at `high`, one LSB = (high - low)/(2^b - 1)
apart. A signal inside the range is off by at most LSB/2, with variance LSB^2/12 when it moves over many levels, so a sine
of full scale has a ratio of signal to error of 6.02 b + 1.76 dB (W. R. Bennett, Bell Syst. Tech. J. 27, 446 (1948)).
Zero is no level of a symmetric range: it lies half way between two, and is rounded to the even one.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.randomness import Key, normals
from inmaterio.devices.validation import InputError, check_array, check_name, check_range


@kernel
def _clip(values: NDArray[Any], low: float, high: float, out: NDArray[Any]) -> int:
    """Clip 1-d values into out; the number of values that are not numbers."""
    bad = 0
    for i in range(values.shape[0]):
        value: float = np.float64(values[i])
        bad += int(value != value)
        out[i] = min(max(value, low), high)
    return bad


@kernel
def _clip_and_round(values: NDArray[Any], low: float, high: float, steps: float, out: NDArray[Any]) -> int:
    """Clip 1-d values and round them to the grid of `steps` steps; the number of values that are not numbers."""
    bad = 0
    step = (high - low) / steps
    per_step = steps / (high - low)
    for i in range(values.shape[0]):
        value: float = np.float64(values[i])
        bad += int(value != value)
        value = min(max(value, low), high)
        out[i] = min(low + np.rint((value - low) * per_step) * step, high)
    return bad


@dataclass(frozen=True, slots=True)
class Converter:
    """A digital-to-analog or analog-to-digital converter.

    Attributes
    ----------
    bits : int or None
        Resolution, 1 ... 24; None rounds nothing. What is finite of the range is clipped to either way.
    low, high : float
        Range, in `unit`. Both must be finite when `bits` is given.
    noise : float
        Standard deviation, in `unit`, of the noise referred to its input; one draw per conversion.
    unit : str
        SI unit of the analog signal; ``"1"`` for activities.

    Raises
    ------
    InputError
        When a value is out of its limits.
    """

    bits: int | None = None
    low: float = -np.inf
    high: float = np.inf
    noise: float = 0.0
    unit: str = "1"

    def __post_init__(self) -> None:
        if self.bits is not None:
            check_range("converter's bits", self.bits, low=1, high=24)
            if not isinstance(self.bits, (int, np.integer)):
                raise InputError(f"converter's bits is {self.bits}; expected a whole number in [1, 24], or None")
            check_range("converter's low", self.low, low=-np.inf, low_open=True, high=np.inf, high_open=True, unit=self.unit)
            check_range("converter's high", self.high, low=self.low, low_open=True, high=np.inf, high_open=True, unit=self.unit)
        check_range("converter's low", self.low, high=np.inf, high_open=True, unit=self.unit)
        check_range("converter's high", self.high, low=self.low, low_open=True, unit=self.unit)
        check_range("converter's noise", self.noise, low=0.0, high=np.inf, high_open=True, unit=self.unit)

    @property
    def levels(self) -> int | None:
        """Number of levels, 2^bits; None for a converter that does not round."""
        return None if self.bits is None else 2 ** int(self.bits)

    @property
    def lsb(self) -> float:
        """Distance of two levels, in `unit`; 0 for a converter that does not round."""
        return 0.0 if self.bits is None else (self.high - self.low) / (2 ** int(self.bits) - 1)

    def event(self, kind: Literal["dac", "adc"]) -> str:
        """Name of one conversion in the ledger, such as ``adc_conversion_8b``; ``..._ideal`` when it does not round."""
        check_name("kind of converter", kind, ("adc", "dac"))
        return f"{kind}_conversion_{'ideal' if self.bits is None else f'{self.bits}b'}"


def convert(
    converter: Converter, values: NDArray[Any], *, key: Key | None = None, samples: NDArray[np.int64] | None = None, step: int = 0
) -> NDArray[Any]:
    """Convert every value once: noise, clipping, rounding.

    Parameters
    ----------
    converter : Converter
    values : ndarray of real numbers
        In units of the converter; shape (batch, ...) when there is noise, else any. Infinities are clipped.
    key : Key, optional
        Of the noise; needed when there is any.
    samples : ndarray of int, shape (batch,), optional
        Data-set index of each row; needed when there is noise.
    step : int
        Step of an iteration, for noise that is drawn at each.

    Returns
    -------
    ndarray
        A new array of the same shape; float32 stays float32, anything else becomes float64. The arithmetic is done in
        float64.

    Raises
    ------
    InputError
        When a value is not a number, or there is noise and no key or samples.
    """
    given = np.asarray(values)
    if given.dtype.kind not in "biuf":
        raise InputError(f"signal to convert holds {given.dtype} values; expected real numbers")
    signal = np.asarray(given, given.dtype if given.dtype in (np.float32, np.float64) else np.float64, order="C")
    flat = signal.reshape(-1)
    if converter.noise > 0.0:
        if key is None or samples is None:
            raise InputError(
                f"converter has noise of {converter.noise:g} {converter.unit}; expected a key and samples to draw it"
            )
        if signal.ndim == 0 or len(samples) != len(signal):
            raise InputError(f"samples have length {len(samples)}; expected one for each row of a signal of shape {signal.shape}")
        draws = normals(key, samples, signal.size // max(len(signal), 1), step=step)
        flat = flat + converter.noise * draws.reshape(-1)
    out = np.empty(signal.size, signal.dtype)
    if converter.bits is None:
        bad = _clip(flat, float(converter.low), float(converter.high), out)
    else:
        bad = _clip_and_round(flat, float(converter.low), float(converter.high), 2.0 ** int(converter.bits) - 1.0, out)
    if bad:
        # Names the first place; an infinity is no error, so it is hidden from the check.
        check_array("signal to convert", np.where(np.isnan(signal), signal, 0.0), unit=converter.unit)
    return out.reshape(signal.shape)


def signed_converter(limit: float, bits: int | None, noise: float) -> Converter:
    """A converter of [-limit, limit] with a level at exactly zero: two's complement, one level more below than above.

    Without bits it clips nothing: an ideal converter has no end.
    """
    if bits is None:
        return Converter(noise=noise)
    if bits < 2:
        return Converter(bits=bits, low=-limit, high=limit, noise=noise)
    above = 2 ** (int(bits) - 1) - 1
    return Converter(bits=bits, low=-limit * (above + 1) / above, high=limit, noise=noise)
