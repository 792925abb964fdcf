"""A layer shows the voxels that lie in it, where they lie."""

import numpy as np
import pytest

from tds2el.layer import Layer, layer_from_name
from tds2el.volume.layers import PlaneAxes, cut_volume

TILTED = np.array([[1.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.5, 1.0]])
GRIDS = {
    "hkl": {},
    "cartesian": {"kind": "cartesian", "limits": [[-0.5, 0.3], [-0.9, 0.9], [-1.0, 1.0]]},
    "tilted": {"basis": TILTED, "origin": (0.5, -0.25, 1.0)},
}


@pytest.mark.parametrize(
    ("name", "index", "value"),
    [("hk0", 2, 0), ("h0l", 1, 0), ("0kl", 0, 0), ("hk0.5", 2, 0.5), ("-1.5kl", 0, -1.5), ("h-2l", 1, -2)],
)  # fmt: skip
def test_names_of_layers(name, index, value):
    assert layer_from_name(name) == Layer(name, index, value)


@pytest.mark.parametrize("name", ["", "hkl", "h00", "hk", "kh0", "hk1/2", "hke", "hk0 ", "HK0", "hk--1", "../hk0"])
def test_what_is_no_layer_is_refused(name):
    with pytest.raises(ValueError, match="is no layer"):
        layer_from_name(name)


@pytest.mark.parametrize("name", ["hk0", "h0.5l", "-1kl"])
def test_axes_in_the_layer_are_cartesian(make_volume, name):
    cell, layer = make_volume().cell, layer_from_name(name)
    plane = PlaneAxes(layer, cell)
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    q = plane.to_q(x, y, layer.value)
    np.testing.assert_allclose((q @ cell.A.T)[:, layer.index], layer.value, atol=1e-12)
    np.testing.assert_allclose(plane.to_plane(q), np.stack([x, y], axis=-1), atol=1e-12)
    flat = np.hypot(np.subtract.outer(x, x), np.subtract.outer(y, y))
    np.testing.assert_allclose(np.linalg.norm(q[:, None] - q, axis=-1), flat, atol=1e-12)
    first = cell.B[:, layer.free[0]]
    np.testing.assert_allclose(x, q @ first / np.linalg.norm(first), atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
@pytest.mark.parametrize("name", ["hk0", "h0.4l", "1kl"])
def test_every_pixel_has_the_value_of_the_nearest_voxel(make_volume, grid, name):
    volume, layer = make_volume(**grid), layer_from_name(name)
    cut = cut_volume(volume, layer)
    rows, columns = cut.intensity.shape
    left, right, bottom, top = cut.extent
    assert (right - left) / columns == pytest.approx((top - bottom) / rows)
    grid, cell = volume.grid, volume.cell
    random = np.random.default_rng(2)
    measured = 0
    for row, column in zip(random.integers(0, rows, 400), random.integers(0, columns, 400), strict=True):
        x, y = left + (column + 0.5) * (right - left) / columns, bottom + (row + 0.5) * (top - bottom) / rows
        q = PlaneAxes(layer, cell).to_q(np.array(x), np.array(y), layer.value)
        place = cell.A @ q if grid.kind == "hkl" else q
        along = np.linalg.solve(grid.basis.T, place - grid.origin)
        node = (along - grid.limits[:, 0]) / (grid.limits[:, 1] - grid.limits[:, 0]) * (np.array(grid.shape) - 1)
        if np.abs(node % 1 - 0.5).min() < 1e-3:
            continue  # on the face between two voxels
        i, j, k = (round(float(n)) for n in node)
        inside = all(0 <= n < size for n, size in zip((i, j, k), grid.shape, strict=True))
        if inside and volume.correction[i, j, k] > 0:
            assert cut.intensity[row, column] == pytest.approx(volume.counts[i, j, k] / volume.correction[i, j, k])
            measured += 1
        else:
            assert np.isnan(cut.intensity[row, column])
    assert measured > 50


def test_a_thick_layer_adds_up_counts_and_corrections(make_volume):
    # Counts and corrections that depend on l alone: 2^n and n + 1 in the n-th plane of nodes.
    def plane(q):
        return np.broadcast_to(np.arange(q.shape[2]), q.shape[:3])

    volume = make_volume(
        shape=(9, 9, 13), limits=[[-2, 2], [-2, 2], [-3, 3]],
        counts=lambda q: 2.0 ** plane(q), correction=lambda q: plane(q) + 1.0,
    )  # fmt: skip
    thickness = 2.0  # four steps
    cut = cut_volume(volume, layer_from_name("hk0"), thickness)
    assert cut.thickness == thickness
    depths = (np.arange(9) + 0.5) / 9 - 0.5
    met = np.rint(6 + depths * thickness / 0.5).astype(int)
    assert sorted(set(met)) == [4, 5, 6, 7, 8]
    rows, columns = cut.intensity.shape
    middle = cut.intensity[rows // 2, columns // 2]
    assert middle == pytest.approx((2.0**met).sum() / (met + 1.0).sum())
    assert cut_volume(volume, layer_from_name("hk0")).intensity[rows // 2, columns // 2] == pytest.approx(2.0**6 / 7)


def test_background_is_taken_off(make_volume):
    volume = make_volume()
    before = cut_volume(volume, layer_from_name("hk0")).intensity
    volume.background = 0.25 * volume.correction
    after = cut_volume(volume, layer_from_name("hk0")).intensity
    np.testing.assert_allclose(after, before - 0.25, atol=1e-12)


def test_a_picture_coarser_than_voxels_loses_nothing(make_volume):
    # Two voxels to a pixel along each edge: every voxel has its share.
    n = 2401
    volume = make_volume(
        "cartesian", (n, n, 1), [[-1, 1], [-1, 1], [-0.1, 0.1]],
        counts=lambda q: (np.random.default_rng(0).random(q.shape[:3]) < 0.001).astype(float),
        correction=lambda q: np.ones(q.shape[:3]),
    )  # fmt: skip
    volume.cell = volume.grid.cell
    cut = cut_volume(volume, layer_from_name("hk0"))
    assert max(cut.intensity.shape) <= 1201
    assert np.nanmean(cut.intensity) == pytest.approx(volume.counts.mean(), rel=0.02)


def test_outside_the_volume_there_is_no_layer(make_volume):
    volume = make_volume()
    assert cut_volume(volume, layer_from_name("5kl")) is None
    slab = make_volume(shape=(9, 9, 1), limits=[[-2, 2], [-2, 2], [-0.1, 0.1]])
    assert cut_volume(slab, layer_from_name("hk0")) is not None
    assert cut_volume(slab, layer_from_name("h0l")) is None
    volume.correction[:] = 0
    assert cut_volume(volume, layer_from_name("hk0")) is None
