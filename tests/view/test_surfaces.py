"""Sound and Young's modulus against closed forms."""

import numpy as np
import pytest

from tds2el.crystal.frames import rotate
from tds2el.view.surfaces import phase_velocities, young_modulus

C11, C12, C44, RHO = 297.0, 94.0, 156.0, 3.58


def cubic(c11, c12, c44):
    tensor = np.diag([c11 - c12] * 3 + [c44] * 3)
    tensor[:3, :3] += c12
    return tensor


@pytest.fixture(scope="module")
def directions():
    vectors = np.random.default_rng(5).normal(size=(4, 25, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_an_isotropic_solid_is_the_same_in_all_directions(directions):
    tensor = cubic(C11, C12, (C11 - C12) / 2)
    shear = (C11 - C12) / 2
    velocities = phase_velocities(tensor, RHO, directions)
    expected = np.broadcast_to(np.sqrt(np.array([C11, shear, shear]) / RHO), velocities.shape)
    np.testing.assert_allclose(velocities, expected, rtol=1e-12)
    young = (C11 - C12) * (C11 + 2 * C12) / (C11 + C12)
    np.testing.assert_allclose(young_modulus(tensor, directions), np.full((4, 25), young), rtol=1e-12)


@pytest.mark.parametrize(
    ("direction", "moduli"),
    [
        ((1, 0, 0), (C11, C44, C44)),
        ((1, 1, 0), ((C11 + C12 + 2 * C44) / 2, C44, (C11 - C12) / 2)),
        ((1, 1, 1), ((C11 + 2 * C12 + 4 * C44) / 3, *[(C11 - C12 + C44) / 3] * 2)),
    ],
)
def test_sound_in_a_cubic_crystal(direction, moduli):
    n = np.array(direction) / np.linalg.norm(direction)
    np.testing.assert_allclose(phase_velocities(cubic(C11, C12, C44), RHO, n), np.sqrt(np.array(moduli) / RHO))


@pytest.mark.parametrize(("direction", "weight"), [((1, 0, 0), 0), ((1, 1, 0), 1 / 4), ((1, 1, 1), 1 / 3)])
def test_young_modulus_of_a_cubic_crystal(direction, weight):
    """1/E = s11 − 2(s11 − s12 − s44/2)(n1²n2² + n2²n3² + n3²n1²)."""
    s11 = (C11 + C12) / ((C11 - C12) * (C11 + 2 * C12))
    s12 = -C12 / ((C11 - C12) * (C11 + 2 * C12))
    n = np.array(direction) / np.linalg.norm(direction)
    expected = 1 / (s11 - 2 * (s11 - s12 - 0.5 / C44) * weight)
    assert young_modulus(cubic(C11, C12, C44), n) == pytest.approx(expected)


def test_both_turn_with_the_crystal(directions):
    rng = np.random.default_rng(2)
    root = rng.normal(size=(6, 6))
    tensor = root @ root.T + 20 * np.eye(6)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turned, seen = rotate(tensor, rotation), directions @ rotation.T
    np.testing.assert_allclose(young_modulus(turned, seen), young_modulus(tensor, directions), rtol=1e-9)
    np.testing.assert_allclose(
        phase_velocities(turned, RHO, seen), phase_velocities(tensor, RHO, directions), rtol=1e-9
    )
