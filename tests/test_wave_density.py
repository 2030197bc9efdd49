"""The projected density: limits of each stage, symmetry of the blur, and the gradient with its order."""

import numpy as np
import pytest

from inmaterio.devices.randomness import Key
from inmaterio.devices.validation import InputError
from inmaterio.simulators import wave_density
from inmaterio.simulators.wave_density import Projection


def draw(shape: tuple[int, int], name: str) -> np.ndarray:
    return Key(5).at(name).generator().uniform(size=shape)


def test_disc_counts_cells_by_distance_of_centres() -> None:
    assert wave_density.disc(0.0).tolist() == [[1.0]]
    assert np.count_nonzero(wave_density.disc(1.0)) == 5
    assert np.count_nonzero(wave_density.disc(1.5)) == 9
    assert np.count_nonzero(wave_density.disc(2.0)) == 13
    assert wave_density.disc(3.7).sum() == pytest.approx(1.0, abs=1e-15)


def test_blur_is_the_mean_over_the_disc_cell_by_cell() -> None:
    density = draw((7, 5), "density")
    wanted = np.zeros_like(density)
    for i in range(7):
        for j in range(5):
            near = [density[k, m] for k in range(7) for m in range(5) if (k - i) ** 2 + (m - j) ** 2 <= 4]
            wanted[i, j] = sum(near) / 13
    assert np.allclose(wave_density.blur(density, 2.0), wanted, atol=1e-15)


def test_projection_ends_at_the_two_materials() -> None:
    projection = Projection(speed_0=343.0, speed_1=171.5, beta=30.0)
    full, empty, middle = np.ones((9, 9)), np.zeros((9, 9)), np.full((9, 9), 0.5)
    assert np.allclose(wave_density.speed(projection, full)[1:-1, 1:-1], 171.5, rtol=1e-12)
    assert np.allclose(wave_density.speed(projection, empty), 343.0, rtol=1e-12)
    assert np.allclose(wave_density.material(projection, middle)[1:-1, 1:-1], 0.5, atol=1e-12)
    soft = Projection(speed_0=1.0, speed_1=2.0, beta=0.0, radius=0.0)
    density = draw((4, 6), "soft")
    assert np.array_equal(wave_density.material(soft, density), density)


@pytest.mark.parametrize("beta", [0.0, 3.0, 20.0])
@pytest.mark.parametrize("radius", [0.0, 1.0, 2.3])
def test_gradient_against_finite_differences_of_second_order(beta: float, radius: float) -> None:
    projection = Projection(speed_0=343.0, speed_1=171.5, beta=beta, radius=radius, eta=0.4)
    density, direction, weight = draw((8, 6), "rho"), draw((8, 6), "direction") - 0.5, draw((8, 6), "weight") - 0.5
    exact = float(np.sum(direction * wave_density.speed_pullback(projection, density, weight)))
    errors = []
    for step in (2e-3, 1e-3):
        sides = [np.sum(weight * wave_density.speed(projection, density + sign * step * direction)) for sign in (1, -1)]
        errors.append(abs((sides[0] - sides[1]) / (2 * step) - exact))
    if beta == 0.0:
        assert max(errors) < 1e-9
    else:
        assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speed_0": 0.0}, "speed_0 is 0 m/s"),
        ({"radius": -1.0}, "blur radius is -1 cells"),
        ({"eta": 1.5}, "projection eta is 1.5"),
    ],
)
def test_bad_projections_are_named(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Projection(**({"speed_0": 343.0, "speed_1": 171.5} | options))
    with pytest.raises(InputError, match="density has shape"):
        wave_density.speed(Projection(speed_0=343.0, speed_1=171.5), np.zeros(3))
