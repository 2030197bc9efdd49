"""What a kernel meets at all its positions: local products of clocked layers whose couplings are shared."""

from collections.abc import Mapping

from inmaterio.devices.validation import InputError, check_array
from inmaterio.simulators.capabilities import Array, Outer
from inmaterio.simulators.convolution import Convolution
from inmaterio.simulators.switches import Switches


def local_products(
    maps: tuple[Convolution, ...], switches: Switches, inputs: Array, states: tuple[Array, ...], vectors: tuple[Array, ...]
) -> Mapping[str, Outer | Array]:
    """Batch mean of (da_k/dtheta)^T v_k of each parameter, a_k = pool_k(W_k * s_{k-1}) + b_k.

    For weight_k the sum over positions of v_k, sent back through the pooling, and what lay under the kernel there: an outer
    product of batch * positions rows. For bias_k the sum of v_k over the nodes of each channel.

    Parameters
    ----------
    maps : tuple of Convolution
        To layers 1..L.
    switches : Switches
        Of a pass of the same batch.
    inputs : ndarray, shape (batch, n_0)
    states, vectors : tuple of ndarray, each (batch, n_k)
        Of layers 1..L, as measured; the last of `states` is not used.

    Raises
    ------
    InputError
        When a layer is missing or does not fit, or max pooling holds switches of another batch.
    """
    for name, layers in (("states", states), ("vectors", vectors)):
        if len(layers) != len(maps):
            raise InputError(f"{name} holds {len(layers)} layers; expected {len(maps)}")
        for k, (one, layer) in enumerate(zip(maps, layers, strict=True), start=1):
            check_array(f"{name} of layer {k}", layer, shape=(len(inputs), one.size_above))
    check_array("input", inputs, shape=(None, maps[0].size_below))
    products: dict[str, Outer | Array] = {}
    for k, (one, below, vector) in enumerate(zip(maps, (inputs, *states[:-1]), vectors, strict=True), start=1):
        products[f"weight_{k}"] = Outer(switches.unpool(k, vector), one.patches(below), float(one.positions))
        products[f"bias_{k}"] = one.sum_places(vector).mean(axis=0)
    return products
