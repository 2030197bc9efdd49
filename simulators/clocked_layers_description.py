"""What is the same for every chip of clocked layers: sizes, devices, converters, times."""

from dataclasses import dataclass

from inmaterio.devices.conductance import ConductancePair
from inmaterio.devices.converters import Converter, signed_converter
from inmaterio.devices.validation import check_name, check_range
from inmaterio.simulators.perceptron import FEEDBACKS, RESPONSES, Response, check_widths


@dataclass(frozen=True, slots=True)
class ClockedLayersDescription:
    """Everything about the network that is the same for every chip made to it. Imperfections are off unless they are given.

    Attributes
    ----------
    widths : tuple of int
        Nodes per layer, input first.
    activation : str
        Response of the hidden layers, a name in `perceptron.RESPONSES`; outputs are linear.
    feedback : str
        ``"transposed"``: vectors come back by driving the columns of the same array. ``"separate"``: through arrays of their
        own, parameters feedback_k.
    feedback_angle : float
        Degrees at which separate feedback begins to its weights: see `Parameter.angle`.
    dtype : str
        ``"float32"`` or ``"float64"``: precision of the simulation.
    weight_max : float
        Weight at full conductance, in units of activity per activity.
    g_min, g_max : float
        Conductance range in siemens.
    levels, programming_noise, read_noise, device_spread, soft_bounds
        See `ConductancePair`. Read noise is drawn for each product: once per sample and line.
    dac_bits, adc_bits : int or None
        Resolution of the converters; None for ideal ones, which clip nothing and have no price.
    dac_noise, adc_noise : float
        Noise of the converters of a product, referred to their input, in units of activity.
    state_range, drive_range : float
        Full scale of the converters of unbounded states, and of drives and products, in units of activity; for converters
        with bits.
    volts_per_activity : float
        Drive in volts of a line at activity 1. 0.2 V, an assumed read voltage common for resistive memory.
    seconds_per_product, seconds_per_response, seconds_per_conversion, seconds_per_write : float
        How long an array is driven for a product, a node takes to respond, a conversion takes, and the writing of one row of
        devices. 100 ns each, assumed: 10 MS/s converters and sub-microsecond amplifiers and pulses.
    """

    widths: tuple[int, ...]
    activation: str = "relu"
    feedback: str = "transposed"
    feedback_angle: float = 90.0
    dtype: str = "float32"
    weight_max: float = 4.0
    g_min: float = 0.0
    g_max: float = 25e-6
    levels: int | None = None
    programming_noise: float = 0.0
    read_noise: float = 0.0
    device_spread: float = 0.0
    soft_bounds: bool = False
    dac_bits: int | None = None
    adc_bits: int | None = None
    dac_noise: float = 0.0
    adc_noise: float = 0.0
    state_range: float = 4.0
    drive_range: float = 4.0
    volts_per_activity: float = 0.2
    seconds_per_product: float = 1e-7
    seconds_per_response: float = 1e-7
    seconds_per_conversion: float = 1e-7
    seconds_per_write: float = 1e-7

    def __post_init__(self) -> None:
        check_widths(self.widths)
        check_name("activation", self.activation, RESPONSES)
        check_name("feedback", self.feedback, FEEDBACKS)
        check_name("dtype", self.dtype, ("float32", "float64"))
        check_range("state_range", self.state_range, low=0.0, low_open=True, high_open=True, unit="units of activity")
        check_range("drive_range", self.drive_range, low=0.0, low_open=True, high_open=True, unit="units of activity")
        check_range("volts_per_activity", self.volts_per_activity, low=0.0, high=2.0, low_open=True, unit="V")
        for name in ("seconds_per_product", "seconds_per_response", "seconds_per_conversion", "seconds_per_write"):
            check_range(name, getattr(self, name), low=0.0, high=1.0, unit="s")

    @property
    def pair(self) -> ConductancePair:
        """The devices of every array."""
        return ConductancePair(
            g_min=self.g_min,
            g_max=self.g_max,
            weight_max=self.weight_max,
            levels=self.levels,
            programming_noise=self.programming_noise,
            read_noise=self.read_noise,
            device_spread=self.device_spread,
            soft_bounds=self.soft_bounds,
        )

    @property
    def response(self) -> Response:
        """Of the nodes of hidden layers."""
        return RESPONSES[self.activation]

    def line_dac(self, layer: int) -> Converter:
        """What drives the rows of a layer's array: the states below, or the inputs."""
        if layer == 1:
            return signed_converter(1.0, self.dac_bits, self.dac_noise)
        return self._state_converter(self.dac_bits, self.dac_noise)

    def vector_dac(self) -> Converter:
        """What drives columns, or the rows of a feedback array: vectors scaled to 1."""
        return signed_converter(1.0, self.dac_bits, self.dac_noise)

    def product_adc(self) -> Converter:
        """What reads a product."""
        return signed_converter(self.drive_range, self.adc_bits, self.adc_noise)

    def node_dac(self) -> Converter:
        """What drives the nodes."""
        return signed_converter(self.drive_range, self.dac_bits, 0.0)

    def state_adc(self) -> Converter:
        """What reads the states of the nodes."""
        return self._state_converter(self.adc_bits, 0.0)

    def _state_converter(self, bits: int | None, noise: float) -> Converter:
        response = self.response
        high = min(response.high, self.state_range)
        if response.low == 0.0:
            return Converter(noise=noise) if bits is None else Converter(bits=bits, low=0.0, high=high, noise=noise)
        return signed_converter(high, bits, noise)
