"""Known quantities against other formulas, their gradients against differences, and adiabatic constants."""

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.moduli import voigt_reuss_hill
from tds2el.crystal.quantities import quantity
from tds2el.crystal.symmetry import point_group
from tds2el.crystal.thermal import Thermal, expansion_tensor
from tds2el.errors import InputError
from tds2el.kinds import QUANTITIES

CELL = Cell(5, 6, 7, 85, 95, 100)
# Albite, triclinic, GPa.
C = np.zeros((6, 6))
VALUES = "69.1 34 30.8 5.1 -2.4 -0.9 183.5 5.5 -3.9 -7.7 -5.8 179.5 -8.7 7.1 -9.8 24.9 -2.4 -7.2 26.8 0.5 33.5"
C[np.triu_indices(6)] = np.array(VALUES.split(), dtype=float)
C = C + np.triu(C, 1).T
THERMAL = Thermal(300.0, 2.6, 0.75, np.array([1e-5, 0.6e-5, 0.9e-5, 1e-6, -2e-6, 3e-6]))


def slopes(function, gradient):
    """Derivative along random symmetric changes: by differences, and from the gradient."""
    for change in np.random.default_rng(3).normal(size=(5, 6, 6)):
        change = change + change.T
        step = 1e-4
        yield (function(C + step * change) - function(C - step * change)) / (2 * step), np.sum(gradient * change)


@pytest.mark.parametrize("name", [q for q in QUANTITIES if not q.startswith("A")])
def test_values_and_gradients(name):
    found = quantity(name, CELL)
    value, gradient = found(C)
    if name.startswith("beta"):
        # A cube under 1 GPa: relative change of the length of the axis.
        strain = np.linalg.solve(C, [-1.0, -1, -1, 0, 0, 0])
        e = np.array(
            [[strain[0], strain[5] / 2, strain[4] / 2], [strain[5] / 2, strain[1], strain[3] / 2],
             [strain[4] / 2, strain[3] / 2, strain[2]]]
        )  # fmt: skip
        axis = CELL.A["abc".index(name[-1])]
        tiny = 1e-6
        expected = -(np.linalg.norm((np.eye(3) + tiny * e) @ axis) / np.linalg.norm(axis) - 1) / tiny
        assert value == pytest.approx(expected, rel=1e-4)
    else:
        means = voigt_reuss_hill(C)
        attribute = name.replace("K_", "bulk_").replace("G_", "shear_").replace("E_", "young_").lower()
        assert value == pytest.approx(getattr(means, attribute), rel=1e-12)
    for by_differences, exact in slopes(lambda c: found(c)[0], gradient):
        assert exact == pytest.approx(by_differences, rel=1e-6, abs=1e-9)


def test_axial_compressibilities_of_an_orthogonal_cell_add_up_to_the_bulk_modulus():
    cell = Cell(5, 6, 7, 90, 90, 90)
    total = sum(quantity(f"beta_{axis}", cell)(C)[0] for axis in "abc")
    assert total == pytest.approx(1 / voigt_reuss_hill(C).bulk_reuss, rel=1e-12)


def test_adiabatic_constants_follow_the_textbook():
    """K_S = K_T/(1 − T α_V² K_T/(ρ c_p)); the heat of compression done by hand: ΔT = T α_V Δp/(ρ c_p)."""
    adiabatic = THERMAL.adiabatic(C)
    bulk, bulk_s = voigt_reuss_hill(C).bulk_reuss, voigt_reuss_hill(adiabatic).bulk_reuss
    by_volume = THERMAL.expansion[:3].sum()
    heat = 2600.0 * 750.0  # J/(m³ K)
    assert bulk_s == pytest.approx(bulk / (1 - 300 * by_volume**2 * bulk * 1e9 / heat), rel=1e-10)
    warming = 300 * by_volume * 1e9 / heat  # K per GPa
    strain = np.linalg.solve(C, [-1.0, -1, -1, 0, 0, 0]) + THERMAL.expansion * warming
    assert np.linalg.solve(adiabatic, [-1.0, -1, -1, 0, 0, 0]) == pytest.approx(strain, rel=1e-9)


def test_gradient_through_the_adiabatic_tensor():
    found = quantity("K_Hill", CELL)
    gradient = THERMAL.gradient(C, found(THERMAL.adiabatic(C))[1])
    for by_differences, exact in slopes(lambda c: found(THERMAL.adiabatic(c))[0], gradient):
        assert exact == pytest.approx(by_differences, rel=1e-6)


def test_expansion_has_the_symmetry_of_the_crystal():
    trigonal = point_group("1~,3(z),2(y)", Cell(5, 5, 17, 90, 90, 120), None)
    assert np.allclose(expansion_tensor((-5e-6, -5e-6, 26e-6), trigonal), [-5e-6, -5e-6, 26e-6, 0, 0, 0])
    with pytest.raises(InputError, match="symmetry of"):
        expansion_tensor((-5e-6, 5e-6, 26e-6), trigonal)
    with pytest.raises(InputError, match="only a cubic"):
        expansion_tensor((1e-5,), trigonal)
    cubic = point_group("m-3m", Cell(4, 4, 4, 90, 90, 90), None)
    assert np.allclose(expansion_tensor((1e-5,), cubic), [1e-5, 1e-5, 1e-5, 0, 0, 0])
    free = point_group("1~", CELL, None)
    assert expansion_tensor((1e-5, 2e-5, 3e-5, 1e-6, 2e-6, 3e-6), free)[3:].tolist() == [2e-6, 4e-6, 6e-6]


def test_impossible_heat_capacity_is_refused():
    with pytest.raises(InputError, match=r"J/\(g K\)"):
        Thermal(300.0, 2.6, 1e-9, THERMAL.expansion).adiabatic(C)
