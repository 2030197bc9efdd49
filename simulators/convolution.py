"""The map between two layers that hold images: a convolution, its pooling, and both ways through them.

Layers stay flat, (batch, height * width * channels), channels fastest. For each position of the kernel on the image below, the
values under it are a row of `patches`; a position beyond the edge counts as 0. One matrix (channels, kernel height * kernel
width * channels below) serves all rows, so that a product of a convolution is that of a dense layer with batch * positions
samples,

    v = patches(s) W^T,   a = pool(v) + b

and so is its gradient. Rows are ordered by sample, place in the pooling window, window: pooling is a reduction over one axis and
the map before it is never put together as an image. A dense layer is the convolution of a single position.

`fold` is the transpose of `patches`: <patches(s), c> = <s, fold(c)>.
"""

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from inmaterio.devices.compilation import kernel
from inmaterio.devices.validation import InputError, check_name, check_range
from inmaterio.simulators.capabilities import Array
from inmaterio.simulators.pooling import POOLINGS, pool, unpool


@kernel
def _add_patches(rows: Array, shape: NDArray[np.int64], images: Array) -> None:
    """images[b, y, x, c] += every element of rows (batch * positions, taps * channels) that was taken from there.

    `shape` holds kernel, stride, padding, window and pooled height and width, two each.
    """
    batch, height, width, channels = images.shape
    kernel_height, kernel_width, stride_y, stride_x, top, left, window_y, window_x, places_y, places_x = shape
    row = 0
    for b in range(batch):
        for i in range(window_y):
            for j in range(window_x):
                for y in range(places_y):
                    for x in range(places_x):
                        first = 0
                        for u in range(kernel_height):
                            v = (y * window_y + i) * stride_y + u - top
                            for w in range(kernel_width):
                                z = (x * window_x + j) * stride_x + w - left
                                if 0 <= v < height and 0 <= z < width:
                                    for c in range(channels):
                                        images[b, v, z, c] += rows[row, first + c]
                                first += channels
                        row += 1


@final
@dataclass(frozen=True, slots=True)
class Convolution:
    """Geometry of one map. All pairs are (height, width).

    Attributes
    ----------
    image : tuple of int
        (height, width, channels) of the layer below.
    channels : int
        Of the layer above: number of kernels.
    kernel, stride, padding : tuple of int
        Size of a kernel, distance of two of its positions, rows and columns of zeros on each side of the image.
    window : tuple of int
        Of the pooling; windows lie side by side and fill the map.
    pooling : str
        One of `pooling.POOLINGS`.
    temperature : float
        Of softmax pooling, in units of drive.

    Raises
    ------
    InputError
        When a size is not a whole number in its range, a kernel is larger than the padded image, or windows do not fill the map.
    """

    image: tuple[int, int, int]
    channels: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    window: tuple[int, int] = (1, 1)
    pooling: str = "average"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_name("pooling", self.pooling, POOLINGS)
        check_range("temperature", self.temperature, low=0.0, low_open=True, high_open=True, unit="units of drive")
        for name, sizes, low in (
            ("image", self.image, 1),
            ("channels", (self.channels,), 1),
            ("kernel", self.kernel, 1),
            ("stride", self.stride, 1),
            ("padding", self.padding, 0),
            ("pooling window", self.window, 1),
        ):
            for size in sizes:
                if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < low:
                    raise InputError(f"{name} is {sizes}; expected whole numbers >= {low}")
        padded = tuple(n + 2 * p for n, p in zip(self.image[:2], self.padding, strict=True))
        if any(k > n for k, n in zip(self.kernel, padded, strict=True)):
            raise InputError(
                f"kernel is {_times(self.kernel)} on an image of {_times(padded)} with its padding; expected one no larger"
            )
        if any(n % w for n, w in zip(self.map, self.window, strict=True)):
            raise InputError(
                f"pooling window is {_times(self.window)} on a map of {_times(self.map)}; expected one that divides it"
            )

    @property
    def map(self) -> tuple[int, int]:
        """Positions of the kernel along either axis."""
        height, width = (
            (n + 2 * p - k) // s + 1 for n, p, k, s in zip(self.image[:2], self.padding, self.kernel, self.stride, strict=True)
        )
        return height, width

    @property
    def above(self) -> tuple[int, int, int]:
        """(height, width, channels) of the layer above."""
        return self.map[0] // self.window[0], self.map[1] // self.window[1], self.channels

    @property
    def positions(self) -> int:
        """Of the kernel on the image: products per sample."""
        return math.prod(self.map)

    @property
    def taps(self) -> int:
        """Positions in one pooling window."""
        return math.prod(self.window)

    @property
    def places(self) -> int:
        """Pooling windows."""
        return self.positions // self.taps

    @property
    def fan_in(self) -> int:
        """Values under a kernel."""
        return self.kernel[0] * self.kernel[1] * self.image[2]

    @property
    def size_below(self) -> int:
        """Nodes of the layer below."""
        return math.prod(self.image)

    @property
    def size_above(self) -> int:
        """Nodes of the layer above."""
        return self.places * self.channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one product of one sample, padding included."""
        return self.positions * self.channels * self.fan_in

    @property
    def plain(self) -> bool:
        """Whether the one patch of an image is the image itself, as in a dense layer."""
        return self.positions == 1 and self.padding == (0, 0) and self.fan_in == self.size_below

    @property
    def pooling_operations(self) -> int:
        """Comparisons of max pooling, additions and a division of average pooling, of one sample."""
        if self.taps == 1:
            return 0
        return self.size_above * (self.taps - (1 if self.pooling == "max" else 0))

    @property
    def curved(self) -> bool:
        """Whether the slopes of the pooling move with what goes up, and do not just jump."""
        return self.taps > 1 and self.pooling == "softmax"

    @property
    def switched(self) -> bool:
        """Whether the way back depends on what went up."""
        return self.taps > 1 and self.pooling != "average"

    def patches(self, states: Array) -> Array:
        """Rows (batch * positions, fan_in) under the kernel, from states (batch, size_below); a view where it can be one."""
        batch = len(states)
        height, width, channels = self.image
        if self.plain:
            return states.reshape(batch, self.fan_in)
        (top, left), (down, across) = self.padding, self.stride
        padded = np.zeros((batch, height + 2 * top, width + 2 * left, channels), dtype=states.dtype)
        padded[:, top : top + height, left : left + width] = states.reshape(batch, *self.image)
        sample, row, column, channel = padded.strides
        view = as_strided(
            padded,
            (batch, *self.window, *self.above[:2], *self.kernel, channels),
            (
                sample,
                down * row,
                across * column,
                self.window[0] * down * row,
                self.window[1] * across * column,
                row,
                column,
                channel,
            ),
            writeable=False,
        )
        return view.reshape(batch * self.positions, self.fan_in)

    def fold(self, rows: Array) -> Array:
        """The transpose of `patches`: (batch, size_below) of rows (batch * positions, fan_in)."""
        batch = len(rows) // self.positions
        if self.plain:
            return rows.reshape(batch, self.size_below)
        images = np.zeros((batch, *self.image), dtype=rows.dtype)
        shape = (*self.kernel, *self.stride, *self.padding, *self.window, *self.above[:2])
        _add_patches(np.ascontiguousarray(rows), np.array(shape, dtype=np.int64), images)
        return images.reshape(batch, self.size_below)

    def windows(self, values: Array) -> Array:
        """A map of rows (batch * positions, channels) as (batch, taps, places, channels)."""
        return values.reshape(-1, self.taps, self.places, self.channels)

    def pool(self, values: Array) -> tuple[Array, Array]:
        """States (batch, size_above) of a map of rows (batch * positions, channels), and the slopes for `unpool`."""
        pooled, slopes = pool(self.pooling, self.windows(values), self.temperature)
        return pooled.reshape(-1, self.size_above), slopes

    def unpool(self, vectors: Array, slopes: Array) -> Array:
        """Rows (batch * positions, channels) of vectors (batch, size_above): the transpose of the derivative of `pool`."""
        if self.taps == 1:
            return vectors.reshape(-1, self.channels)
        spread = unpool(vectors.reshape(-1, self.places, self.channels), slopes)
        return spread.reshape(-1, self.channels)

    def sum_places(self, vectors: Array) -> Array:
        """Vectors (batch, size_above) summed over the windows of each channel, (batch, channels): what a bias there meets."""
        return np.asarray(vectors.reshape(-1, self.places, self.channels).sum(axis=1))


def dense(below: int, above: int) -> Convolution:
    """The map of a dense layer."""
    return Convolution((1, 1, below), above)


def _times(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
