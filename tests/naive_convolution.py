"""Convolution, pooling and the ways back through them, one number at a time; images are (height, width, channels)."""

import numpy as np


def positions(image: np.ndarray, kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]) -> tuple[int, int]:
    return tuple((image.shape[a] + 2 * padding[a] - kernel[a]) // stride[a] + 1 for a in (0, 1))  # type: ignore[return-value]


def convolve(image, weight, kernel, stride, padding):  # type: ignore[no-untyped-def]
    """weight: (channels above, kernel height, kernel width, channels below)."""
    height, width = positions(image, kernel, stride, padding)
    out = np.zeros((height, width, len(weight)), dtype=np.result_type(image, weight))
    for y in range(height):
        for x in range(width):
            for to in range(len(weight)):
                for u in range(kernel[0]):
                    for v in range(kernel[1]):
                        row, column = y * stride[0] + u - padding[0], x * stride[1] + v - padding[1]
                        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                            for c in range(image.shape[2]):
                                out[y, x, to] += weight[to, u, v, c] * image[row, column, c]
    return out


def convolve_back(errors, weight, shape, kernel, stride, padding):  # type: ignore[no-untyped-def]
    """Transpose of `convolve`: errors are shaped like a map, what comes back like the image."""
    back = np.zeros(shape, dtype=np.result_type(errors, weight))
    for y in range(errors.shape[0]):
        for x in range(errors.shape[1]):
            for u in range(kernel[0]):
                for v in range(kernel[1]):
                    row, column = y * stride[0] + u - padding[0], x * stride[1] + v - padding[1]
                    if 0 <= row < shape[0] and 0 <= column < shape[1]:
                        for to in range(len(weight)):
                            for c in range(shape[2]):
                                back[row, column, c] += weight[to, u, v, c] * errors[y, x, to]
    return back


def pool(values, window, kind, temperature=1.0):  # type: ignore[no-untyped-def]
    """Pooled image of a map."""
    shape = (values.shape[0] // window[0], values.shape[1] // window[1], values.shape[2])
    out = np.zeros(shape, dtype=values.dtype)
    for y, x, c in np.ndindex(shape):
        inside = values[y * window[0] : (y + 1) * window[0], x * window[1] : (x + 1) * window[1], c]
        if kind == "average":
            out[y, x, c] = inside.sum() / inside.size
        elif kind == "max":
            out[y, x, c] = inside.max()
        else:
            powers = np.exp(inside / temperature)
            out[y, x, c] = (inside * powers).sum() / powers.sum()
    return out
