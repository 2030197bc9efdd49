"""Numbers below full precision count as zero inside a kernel that asks for it, and nowhere else."""

import numpy as np
import pytest

from inmaterio.devices.compilation import kernel
from inmaterio.devices.subnormals import IS_X86, flush_subnormals, restore_subnormals


@kernel
def halve(values: np.ndarray) -> None:
    for i in range(values.size):
        values[i] = values[i] / values.dtype.type(2)


@kernel
def halve_flushed(values: np.ndarray) -> None:
    mode = flush_subnormals()
    for i in range(values.size):
        values[i] = values[i] / values.dtype.type(2)
    restore_subnormals(mode)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flushed_inside_and_as_before_outside(dtype: type) -> None:
    tiny = np.finfo(dtype).tiny
    numbers = [1.0, -3.0, 4 * tiny, 2 * tiny, tiny, -tiny, tiny / 4, 0.0]
    before, flushed, after = (np.array(numbers, dtype=dtype) for _ in range(3))
    halve(before)
    halve_flushed(flushed)
    halve(after)
    exact = np.array(numbers, dtype=dtype) / 2
    np.testing.assert_array_equal(before, exact)
    np.testing.assert_array_equal(after, exact)
    normal = np.abs(exact) >= tiny
    np.testing.assert_array_equal(flushed, np.where(normal, exact, 0.0) if IS_X86 else exact)


def test_interpreted_they_do_nothing() -> None:
    assert flush_subnormals() == 0
    restore_subnormals(0)
    assert np.float32(1e-38) / np.float32(4) > 0
