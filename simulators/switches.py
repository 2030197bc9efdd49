"""What a layer with pooling keeps of a batch on its way up, for the way back: where each pooled value came from."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np

from inmaterio.devices.validation import InputError
from inmaterio.simulators.capabilities import Array, Samples
from inmaterio.simulators.convolution import Convolution


@final
class Switches:
    """The slopes of the pooling of each map at the last batch that went up through it.

    Parameters
    ----------
    maps : tuple of Convolution
        To layers 1..L. Nothing is kept for one whose way back does not depend on what went up.
    """

    def __init__(self, maps: tuple[Convolution, ...]) -> None:
        self._maps = maps
        self._kept: dict[int, tuple[Array, Samples]] = {}

    def pool(self, layer: int, values: Array, samples: Samples) -> Array:
        """States (batch, size_above) of a map of rows (batch * positions, channels); keeps the slopes."""
        one = self._maps[layer - 1]
        pooled, slopes = one.pool(values)
        if one.switched:
            self._kept[layer] = (slopes, np.array(samples, dtype=np.int64))
        return pooled

    def unpool(self, layer: int, vectors: Array, samples: Samples | None = None) -> Array:
        """Rows (batch * positions, channels) of vectors (batch, size_above).

        Parameters
        ----------
        layer : int
        vectors : ndarray, shape (batch, size_above)
        samples : ndarray of int64, shape (batch,), optional
            Whose they are; where it is not given they are taken for those kept.

        Raises
        ------
        InputError
            When the last batch that went up was another.
        """
        one = self._maps[layer - 1]
        if not one.switched:
            return one.unpool(vectors, np.full((1, one.taps, 1, 1), 1.0 / one.taps, dtype=np.result_type(vectors, np.float32)))
        slopes, kept = self._kept.get(layer, (np.zeros(0), np.zeros(0, dtype=np.int64)))
        if len(kept) != len(vectors) or (samples is not None and not np.array_equal(kept, samples)):
            whose = "other samples" if len(kept) == len(vectors) else f"{len(kept)} samples"
            raise InputError(
                f"the pooling of layer {layer} holds switches of {whose}; expected a product of these {len(vectors)} samples "
                "through this layer first"
            )
        return one.unpool(vectors, slopes)

    def snapshot(self) -> dict[str, Any]:
        """What is kept, as arrays."""
        return {
            f"{what}_{layer}": value.copy()
            for layer, kept in self._kept.items()
            for what, value in zip(("switches", "switched_samples"), kept, strict=True)
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Go back to a `snapshot`; entries of others are left alone."""
        self._kept = {
            layer: (np.array(snapshot[f"switches_{layer}"]), np.array(snapshot[f"switched_samples_{layer}"], dtype=np.int64))
            for layer in range(1, len(self._maps) + 1)
            if f"switches_{layer}" in snapshot
        }
