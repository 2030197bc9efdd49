"""Convolutional layers on crossbars: `clocked_layers` whose arrays hold kernels and are driven once for each of their positions.

One array (channels, values under a kernel) serves all positions of an image one after the other, so that weights are shared
without copies and a layer takes as many products, each with its conversions and its time, as its map has positions. Pooling,
before the response, and the sums over overlapping kernels on the way back are the host's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, make_dataclass
from typing import Any, get_type_hints

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import check_name
from inmaterio.simulators.clocked_layers import PRESETS as CROSSBARS
from inmaterio.simulators.clocked_layers import ClockedLayers
from inmaterio.simulators.clocked_layers_description import ClockedLayersDescription
from inmaterio.simulators.convolutional_digital import CLOCKED_POOLINGS
from inmaterio.simulators.image_layers import ImageLayers
from inmaterio.simulators.perceptron import check_widths

IMAGE = tuple(field.name for field in fields(ImageLayers) if field.name != "temperature")
CLOCKED = tuple(field.name for field in fields(ClockedLayersDescription) if field.name != "widths")

TYPES = get_type_hints(ImageLayers) | get_type_hints(ClockedLayersDescription)

OPTIONS: Callable[..., Any] = make_dataclass("ConvolutionalCrossbars", [(name, TYPES[name]) for name in (*IMAGE, *CLOCKED)])
"""What the options of `build` are, and of what types."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "convolutional-crossbars-ideal": dict(CROSSBARS["crossbars-ideal"]),
    "convolutional-crossbars-imperfect": dict(CROSSBARS["crossbars-imperfect"]),
}
"""Substrates of this file by name: the devices and converters of the dense ones."""


def build(widths: Sequence[int], *, chip: Key, **options: Any) -> ClockedLayers:
    """A chip.

    Parameters
    ----------
    widths : sequence of int
        Inputs, channels of convolutional layers, nodes of dense ones.
    chip : Key
        Stream of its static errors.
    **options
        Fields of `ImageLayers`, pooling ``"average"`` or ``"max"``, and of `ClockedLayersDescription`.

    Raises
    ------
    InputError
        On an unknown option, a value out of range, or maps that do not fit.

    Examples
    --------
    >>> network = build((64, 8, 10), chip=Key(0), device_spread=0.05)
    >>> network.parameters["weight_1"].shape
    (8, 9)
    """
    for name in options:
        check_name("option of convolutional crossbars", name, (*IMAGE, *CLOCKED))
    image = ImageLayers(**{name: value for name, value in options.items() if name in IMAGE})
    check_name("pooling of clocked layers", image.pooling, CLOCKED_POOLINGS)
    maps = image.maps(check_widths(widths))
    nodes = (maps[0].size_below, *(one.size_above for one in maps))
    clocked = {name: value for name, value in options.items() if name in CLOCKED}
    return ClockedLayers(ClockedLayersDescription(nodes, **clocked), chip, maps)
