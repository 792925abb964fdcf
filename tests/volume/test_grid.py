"""Grids: their nodes, what a scan reaches of them, and how symmetry moves them."""

import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.errors import InputError
from tds2el.volume.grid import Grid, View, frames_that_reach


def make_grid(kind="hkl", shape=(5, 7, 9), limits=((-1, 1), (-3, 3), (0, 2)), basis=None, origin=(0, 0, 0)):
    basis = np.eye(3) if basis is None else np.array(basis, dtype=float)
    return Grid(kind, Cell(6.1, 7.2, 8.3, 88.0, 95.0, 103.0), shape, np.array(limits, float), basis, np.array(origin))


def test_nodes_begin_and_end_at_the_limits():
    grid = make_grid()
    np.testing.assert_allclose(grid.axis(0), [-1, -0.5, 0, 0.5, 1])
    np.testing.assert_allclose(grid.axis(1), np.arange(-3, 4))
    assert grid.names == ("h", "k", "l")


def test_a_single_node_is_in_the_middle_and_takes_the_whole_range():
    grid = make_grid(shape=(5, 1, 9))
    assert grid.axis(1).tolist() == [0.0]
    assert grid.steps[1] == 6.0
    turn, shift = grid.q_to_node
    inside = [turn @ (grid.cell.B @ [0, k, 0]) + shift for k in (-2.99, 2.99, 3.01)]
    assert [abs(node[1]) < 0.5 for node in inside] == [True, True, False]


@pytest.mark.parametrize("kind", ["hkl", "cartesian"])
def test_places_are_sums_of_the_basis(kind):
    grid = make_grid(kind, basis=[[1, 1, 0], [1, -1, 0.5], [0, 0, 2]], origin=[0.1, 0.2, 0.3])
    assert grid.names == ("u", "v", "w")
    turn, shift = grid.q_to_node
    for node in ((0, 0, 0), (4, 6, 8), (1, 2, 3)):
        u, v, w = (grid.axis(n)[i] for n, i in enumerate(node))
        place = grid.origin + u * grid.basis[0] + v * grid.basis[1] + w * grid.basis[2]
        q = grid.cell.B @ place if kind == "hkl" else place
        np.testing.assert_allclose(turn @ q + shift, node, atol=1e-12)
    assert make_grid("cartesian").names == ("x", "y", "z")


def test_a_part_has_the_same_nodes():
    grid = make_grid()
    for begin, end in ((0, 5), (1, 3), (2, 3)):
        part = grid.slabs(begin, end)
        np.testing.assert_allclose(part.axis(0), grid.axis(0)[begin:end])
        np.testing.assert_allclose(part.steps, grid.steps)


def test_no_frame_that_reaches_is_left_out(make_scan):
    """Against all pixels at many angles within each frame, for volumes of many sizes; and most others are left out."""
    scan = make_scan(n_frames=60)
    rng = np.random.default_rng(3)
    phi = scan.geometry.phi(np.arange(scan.n_frames))
    offsets = scan.experiment["angular_step"] * (np.arange(8) + 0.5) / 8 - scan.experiment["angular_step"] / 2
    q = np.array([[scan.places(n, offset, "cartesian") for offset in offsets] for n in range(scan.n_frames)])
    needed = chosen = 0
    for _ in range(40):
        centre = q[rng.integers(60), 0, rng.integers(46), rng.integers(61)]
        half = 10 ** rng.uniform(-3, -0.5, 3)
        limits = np.stack([centre - half, centre + half], axis=1)
        grid = make_grid("cartesian", shape=(3, 2, 1), limits=limits)
        turn, shift = grid.q_to_node
        node = q @ turn.T + shift
        truth = ((node > -0.5) & (node < np.array(grid.shape) - 0.5)).all(axis=-1).any(axis=(1, 2, 3))
        found = frames_that_reach(grid, View(scan.geometry, phi, scan.experiment["angular_step"], (46, 61)))
        assert not (truth & ~found).any()
        needed, chosen = needed + truth.sum(), chosen + found.sum()
    assert needed > 100
    assert chosen < 1.6 * needed + 200


@pytest.mark.parametrize(
    ("basis", "message"), [([[1, 0, 0], [0, 1, 0], [1, 1, 0]], "volume_basis: its three vectors lie")]
)
def test_a_basis_without_volume(scan, basis, message):
    with pytest.raises(InputError, match=message):
        scan.run(volume_basis=basis)
