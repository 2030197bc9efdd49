"""How long it takes to write to arrays of devices, in pulses."""

from collections.abc import Mapping

from inmaterio.simulators.capabilities import Outer, Parameter, Request


def write_pulses(requests: Mapping[str, Request], parameters: Mapping[str, Parameter]) -> int:
    """Pulses that requests take one after the other, each for as long as one write of a device.

    Values are written one row of devices at a time, an outer product all rows at once for each of its terms.

    Parameters
    ----------
    requests : mapping of str to Request
        By parameter, as checked.
    parameters : mapping of str to Parameter
    """
    return sum(
        len(request.left) if isinstance(request, Outer) else parameters[name].shape[0] for name, request in requests.items()
    )
