"""Other programs find every voxel at its place."""

import gemmi
import h5py
import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.volume.export import write_map, write_yell

TILTED = np.array([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
GRIDS = {
    "hkl": {},
    "cartesian": {"kind": "cartesian", "limits": [[-0.5, 0.3], [-0.9, 0.9], [-1.0, 1.0]]},
    "tilted": {"basis": TILTED, "origin": (0.5, -0.25, 1.0)},
    "tilted, in Q": {"kind": "cartesian", "basis": TILTED / 4, "origin": (0.1, 0.2, 0.0)},
    "one layer": {"shape": (9, 1, 11), "limits": [[-2, 2], [-0.5, 0.5], [-2.5, 5]]},
}


def q_of_nodes(grid, nodes):
    """By the definition of a grid."""
    low, high = grid.limits.T
    n = np.array(grid.shape)
    along = np.where(n > 1, low + nodes * (high - low) / np.maximum(n - 1, 1), (low + high) / 2)
    place = grid.origin + along @ grid.basis
    return place @ grid.cell.B.T if grid.kind == "hkl" else place


def scalar_products(places):
    """What does not depend on how a crystal is turned."""
    return places @ places.T


@pytest.fixture(params=GRIDS.values(), ids=GRIDS)
def volume(make_volume, request):
    return make_volume(**request.param)


@pytest.fixture
def nodes(volume):
    return np.random.default_rng(1).integers(0, volume.grid.shape, size=(20, 3))


def test_yell_has_every_voxel_at_its_place(volume, nodes, tmp_path):
    write_yell(volume, tmp_path / "yell.h5")
    with h5py.File(tmp_path / "yell.h5") as file:
        assert file["format"].asstr()[()] == "Yell 1.0"
        assert file["is_direct"][()] == False  # noqa: E712 - not merely falsy: a boolean of HDF5
        assert file["is_direct"].dtype == bool
        assert file["data"].compression is None
        np.testing.assert_array_equal(file["data"][()], volume.intensity)
        assert np.isnan(file["data"][()]).any()
        indices = file["lower_limits"][()] + nodes * file["step_sizes"][()]
        cell = Cell(*(float(x) for x in file["unit_cell"][()]))
    q = q_of_nodes(volume.grid, nodes)
    np.testing.assert_allclose(scalar_products(indices @ cell.B.T), scalar_products(q), atol=1e-9)


def test_indices_in_yell_are_those_of_the_crystal(make_volume, tmp_path):
    volume = make_volume()
    write_yell(volume, tmp_path / "yell.h5")
    with h5py.File(tmp_path / "yell.h5") as file:
        np.testing.assert_allclose(file["unit_cell"], volume.cell.parameters, rtol=1e-12)
        np.testing.assert_allclose(file["lower_limits"], [-2, -3, -2.5])
        np.testing.assert_allclose(file["step_sizes"], [0.5, 2 / 3, 0.75])


def test_a_map_has_every_voxel_at_its_place(volume, nodes, tmp_path):
    write_map(volume, tmp_path / "volume.ccp4")
    ccp4 = gemmi.read_ccp4_map(str(tmp_path / "volume.ccp4"), setup=False)
    values = np.asarray(ccp4.grid.array)
    np.testing.assert_array_equal(values, np.nan_to_num(volume.intensity))
    assert [ccp4.header_i32(word) for word in (17, 18, 19)] == [1, 2, 3]
    start = np.array([ccp4.header_i32(word) for word in (5, 6, 7)])
    origin = np.array([ccp4.header_float(word) for word in (50, 51, 52)])
    samples = np.array([ccp4.header_i32(word) for word in (8, 9, 10)])
    assert not (start.any() and origin.any())
    box = ccp4.grid.unit_cell
    places = [origin + box.orthogonalize(gemmi.Fractional(*place)).tolist() for place in (start + nodes) / samples]
    q = q_of_nodes(volume.grid, nodes)
    np.testing.assert_allclose(scalar_products(np.array(places)), scalar_products(q), rtol=2e-5, atol=1e-5)


def test_where_programs_differ_a_warning_says_so(make_volume, tmp_path, caplog):
    write_map(make_volume(shape=(9, 9, 11), limits=[[-2, 2], [-2, 2], [-3, 4.5]]), tmp_path / "whole.ccp4")
    assert not caplog.records
    write_map(make_volume(limits=[[-2, 2], [-3, 3], [-2.4, 5]]), tmp_path / "between.ccp4")
    assert "ORIGIN" in caplog.text
    write_yell(make_volume(basis=np.diag([1.0, 1.0, -1.0])), tmp_path / "mirror.h5")
    assert "left-handed" in caplog.text
