"""Angular spectrum: unitarity, composition, inversion, Gaussian beams, Talbot images, Rayleigh-Sommerfeld, guards."""

import numpy as np
import pytest
from naive_diffraction import rayleigh_sommerfeld

from inmaterio.devices.validation import InputError
from inmaterio.simulators.diffraction import Gap, band_limit, check_band, cross, cross_back, frequencies, plan

WAVELENGTH = 0.5e-6


def gap(shape: tuple[int, int], distance: float, sine: float = 0.25, pitch: float = WAVELENGTH, **options: object) -> Gap:
    return plan(
        shape,
        pitch_m=pitch,
        wavelength_m=WAVELENGTH,
        distance_m=distance * WAVELENGTH,
        sine=sine,
        **options,  # type: ignore[arg-type]
    )


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=shape) + 1j * rng.normal(size=shape)


def gaussian(side: int, waist: float) -> np.ndarray:
    """Amplitude of a beam whose waist is given in pixels, in the middle of the window."""
    at = np.arange(side) - side // 2
    return np.exp(-(at[:, None] ** 2 + at[None, :] ** 2) / waist**2).astype(complex)


def in_band(one: Gap, field: np.ndarray) -> np.ndarray:
    """What a periodic gap lets through of a field."""
    return np.fft.ifft2(np.fft.fft2(field) * (one.response != 0.0))


def test_propagating_band_is_crossed_without_loss() -> None:
    # a pitch below half a wavelength, so that the grid holds evanescent waves too
    one = gap((24, 30), 7.3, pitch=0.3 * WAVELENGTH, periodic=True)
    assert 0.1 < np.mean(one.response == 0.0) < 0.9
    vertical, horizontal = frequencies((24, 30), 0.3 * WAVELENGTH)
    np.testing.assert_array_equal(one.response != 0.0, vertical**2 + horizontal**2 < WAVELENGTH**-2)
    inside = in_band(one, noise((24, 30)))
    power = np.sum(np.abs(inside) ** 2)
    assert np.sum(np.abs(cross(one, inside)) ** 2) == pytest.approx(power, rel=1e-12)
    outside = noise((24, 30))
    outside = outside - in_band(one, outside)
    assert np.abs(cross(one, outside)).max() < 1e-12


def test_inner_products_are_kept() -> None:
    one = gap((24, 30), 7.3, pitch=0.3 * WAVELENGTH, periodic=True)
    a, b = in_band(one, noise((24, 30), 1)), in_band(one, noise((24, 30), 2))
    assert np.vdot(cross(one, a), cross(one, b)) == pytest.approx(np.vdot(a, b), rel=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
def test_two_gaps_are_one_and_back_is_back(periodic: bool) -> None:
    first, second, both, back = (gap((16, 16), z, periodic=periodic) for z in (9.0, 20.0, 29.0, -29.0))
    kept = both.response != 0.0  # the narrowest band
    np.testing.assert_allclose((first.response * second.response)[kept], both.response[kept], rtol=0.0, atol=1e-12)
    np.testing.assert_allclose((both.response * back.response)[kept], 1.0, rtol=0.0, atol=1e-12)
    if periodic:
        field = noise((16, 16))
        np.testing.assert_allclose(cross(second, cross(first, field)), cross(both, field), atol=1e-12)
        np.testing.assert_allclose(cross(back, cross(both, field)), field, atol=1e-12)


def test_crossing_back_is_the_conjugate_transpose() -> None:
    one = gap((12, 17), 9.0, displacement_m=(0.3e-6, -0.2e-6))
    a, b = noise((12, 17), 1), noise((12, 17), 2)
    assert np.vdot(a, cross(one, b)) == pytest.approx(np.vdot(cross_back(one, a), b), rel=1e-12)


def test_space_is_reciprocal() -> None:
    one = gap((12, 12), 9.0)
    a, b = noise((12, 12), 1), noise((12, 12), 2)
    # without conjugation: source a seen by b is source b seen by a
    assert np.sum(a * cross(one, b)) == pytest.approx(np.sum(b * cross(one, a)), rel=1e-12)


def test_many_fields_at_once() -> None:
    one, fields = gap((12, 17), 9.0), noise((5, 12 * 17)).reshape(5, 12, 17)
    np.testing.assert_allclose(cross(one, fields), np.stack([cross(one, field) for field in fields]), atol=1e-13)


def test_gaussian_beam_widens_as_it_should() -> None:
    deviations = []
    for waist, side in ((4.0, 96), (8.0, 160)):
        rayleigh = np.pi * waist**2
        for multiple in (0.0, 0.5, 1.0):
            field = cross(gap((side, side), multiple * rayleigh, sine=0.3), gaussian(side, waist))
            weight = np.abs(field) ** 2
            at = np.arange(side) - side // 2
            found = 2.0 * np.sqrt(np.sum(weight * at[:, None] ** 2) / np.sum(weight))
            wanted = waist * np.sqrt(1.0 + multiple**2)
            assert found == pytest.approx(wanted, rel=6e-3)
        deviations.append(abs(found / wanted - 1.0))
    # the law is paraxial: what is left falls with the square of wavelength / waist
    assert np.log2(deviations[0] / deviations[1]) == pytest.approx(2.0, abs=0.2)


def test_grating_images_itself_at_the_talbot_distance() -> None:
    period, side = 32, 64
    exact = 1.0 / (1.0 - np.sqrt(1.0 - 1.0 / period**2))  # of orders -1, 0, 1, in wavelengths
    paraxial = 2.0 * period**2
    assert exact == pytest.approx(paraxial, rel=1.0 / (2 * period) ** 2 * 1.1)
    grating = np.broadcast_to(1.0 + 0.5 * np.cos(2.0 * np.pi * np.arange(side) / period), (side, side)).astype(complex)
    image = cross(gap((side, side), exact, periodic=True), grating)
    np.testing.assert_allclose(np.abs(image), np.abs(grating), atol=1e-9)
    half = cross(gap((side, side), 0.5 * exact, periodic=True), grating)
    np.testing.assert_allclose(np.abs(half), np.roll(np.abs(grating), period // 2, axis=1), atol=1e-9)
    quarter = cross(gap((side, side), 0.25 * exact, periodic=True), grating)
    assert np.abs(np.abs(quarter) - np.abs(grating)).max() > 0.1
    # a grating of many orders comes back at the paraxial distance, as nearly as it is paraxial
    lines = np.broadcast_to(np.arange(side) % period < period // 2, (side, side)).astype(complex)
    lines = np.fft.ifft2(np.fft.fft2(lines) * (np.abs(np.fft.fftfreq(side)) < 5.5 / period))
    image = cross(gap((side, side), paraxial, periodic=True), lines)
    assert np.abs(np.abs(image) - np.abs(lines)).max() < 0.5 * np.abs(np.abs(quarter) - np.abs(grating)).max()


@pytest.mark.parametrize("distance", [12.0, 40.0])
def test_agrees_with_the_rayleigh_sommerfeld_sum(distance: float) -> None:
    side, pitch = 48, 0.5 * WAVELENGTH
    rng = np.random.default_rng(4)
    # a lopsided, tilted spot that both ends of the calculation sample well
    at = np.arange(side) - side // 2
    field = np.roll(gaussian(side, 5.0), (3, -4), (0, 1)) * np.exp(1j * 0.3 * at)[None, :]
    field = field + 0.7j * np.roll(gaussian(side, 4.0), (-5, 2), (0, 1))
    places = rng.integers(8, 40, (12, 2))
    found = cross(gap((side, side), distance, sine=0.5, pitch=pitch), field)[places[:, 0], places[:, 1]]
    wanted = rayleigh_sommerfeld(field, pitch, WAVELENGTH, distance * WAVELENGTH, (places - side // 2) * pitch)
    assert np.abs(found - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_wider_padding_changes_nothing() -> None:
    field = gaussian(48, 5.0) * np.exp(0.2j * np.arange(48))
    for distance in (60.0, 170.0):
        found = cross(gap((48, 48), distance), field)
        wider = cross(gap((48, 48), distance, padding=4), field)
        assert np.abs(found - wider).max() < 1e-6 * np.abs(wider).max()


def test_a_displaced_plane_sees_the_field_moved() -> None:
    field = gaussian(32, 4.0)
    straight = cross(gap((32, 32), 10.0), field)
    moved = cross(gap((32, 32), 10.0, displacement_m=(2 * WAVELENGTH, -3 * WAVELENGTH)), field)
    np.testing.assert_allclose(moved[:-2, 3:], straight[2:, :-3], atol=1e-12)


def test_band_limit_is_where_the_phase_turns_half_a_round_per_sample() -> None:
    samples, distance = 64, 30.0 * WAVELENGTH
    limit = band_limit(samples, WAVELENGTH, WAVELENGTH, distance)
    slope = distance * limit / np.sqrt(WAVELENGTH**-2 - limit**2)  # of the phase over 2 pi, by frequency
    assert slope / (samples * WAVELENGTH) == pytest.approx(0.5, rel=1e-12)


def test_undersampled_wavelength_is_refused() -> None:
    with pytest.raises(InputError, match=r"pitch is 6e-07 m; expected at most 5e-07 m to sample waves of wavelength 5e-07 m"):
        gap((16, 16), 1.0, sine=0.5, pitch=0.6e-6)
    with pytest.raises(InputError, match=r"pitch is 2.6e-07 m; expected at most 2.5e-07 m"):
        gap((16, 16), 0.0, sine=1.0, pitch=0.26e-6)


def test_distance_beyond_the_band_limit_is_refused() -> None:
    farthest = 16.0 * np.sqrt(3.0)
    gap((16, 16), 0.999 * farthest, sine=0.5)
    for beyond in (1.001 * farthest, -1.001 * farthest):
        with pytest.raises(InputError, match=r"expected at most 1.38564e-05 m, beyond which waves up to sine 0.5"):
            gap((16, 16), beyond, sine=0.5)
    gap((16, 16), 1.001 * farthest, sine=0.5, padding=3)


def test_field_too_steep_for_the_band_is_refused() -> None:
    far = gap((32, 32), 100.0, sine=0.25)
    check_band(far, gaussian(32, 5.0))
    point = np.zeros((32, 32), complex)
    point[16, 16] = 1.0
    with pytest.raises(InputError, match=r"point source holds 0\.\d+ of its power outside the band of the gap"):
        check_band(far, point, name="point source")


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"wavelength is 0 m"):
        plan((8, 8), pitch_m=1.0, wavelength_m=0.0, distance_m=1.0, sine=0.1)
    with pytest.raises(InputError, match=r"sine of the steepest angle is 1.5"):
        gap((8, 8), 1.0, sine=1.5)
    with pytest.raises(InputError, match=r"padding is 1"):
        gap((8, 8), 1.0, padding=1)
