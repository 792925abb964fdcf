"""The C++ halos against reference numbers and a plain sum over eigenmodes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import constants

from tds2el import _core
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.mosaic import mosaic_blocks
from tds2el.simulate.options import load_scan

REFERENCE = json.loads((Path(__file__).parents[1] / "data" / "tds.json").read_text(encoding="utf-8"))
Array = npt.NDArray[np.float64]


def christoffel(tensor: Array, q: Array) -> Array:
    """Γ_ik = C_ijkl q_j q_l by the definition."""
    voigt = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])
    full = tensor[voigt[:, :, None, None], voigt[None, None]]
    return np.einsum("ijkl,...j,...l->...ik", full, q, q)


def strength_of_modes(tensor: Array, Q: Array, q: Array, temperature: float, density: float) -> Array:
    """Σ_j (Q·e_j)²/λ_j · x coth x from eigenvectors, in 1/GPa."""
    stiffness, mode = np.linalg.eigh(christoffel(tensor, q))
    omega = 2 * np.pi * np.sqrt(stiffness * 1e29 / (density * 1e3))
    x = constants.hbar * omega / (2 * constants.k * temperature)
    amplitude = np.einsum("...i,...ij->...j", Q, mode)
    return np.asarray(np.sum(amplitude**2 / stiffness * x / np.tanh(x), axis=-1))


@pytest.mark.parametrize("case", REFERENCE["cases"], ids=lambda case: f"{case['crystal']}-{case['T']:g}K")
def test_strength_equals_the_reference(case: dict) -> None:
    thermal = 1e3 * case["density"] * (constants.k * case["T"] / constants.hbar) ** 2 / 1e29
    Q, q = (np.array([point[name] for point in case["points"]]) for name in ("Q", "q"))
    expected = np.array([point["S_times_rho_kT"] for point in case["points"]])
    terms = 4 if case["T"] > 100 else 60
    found = _core.halo_strength(Q, q, case["C_GPa"], thermal, terms)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_many_points_are_done_in_batches() -> None:
    case = REFERENCE["cases"][0]
    Q, q = (np.array([point[name] for point in case["points"]]) for name in ("Q", "q"))
    once = _core.halo_strength(Q, q, case["C_GPa"], 40.0, 2)
    many = _core.halo_strength(np.tile(Q, (200, 1)), np.tile(q, (200, 1)), case["C_GPa"], 40.0, 2)
    np.testing.assert_array_equal(many, np.tile(once, 200))


@pytest.mark.parametrize(("mosaicity", "temperature"), [(0.0, 300.0), (0.15, 300.0), (0.0, 20.0)])
def test_image_equals_a_plain_sum(scan_file: Path, mosaicity: float, temperature: float) -> None:
    virtual = VirtualScan(replace(load_scan(scan_file), mosaicity=mosaicity, Temperature=temperature))
    scan, frame = virtual.scan, 13
    row, column = (index.astype(float) for index in np.mgrid[: scan.shape[0] : 6, : scan.shape[1] : 5])
    hkl = np.stack(np.meshgrid(np.arange(-6, 7), np.arange(-6, 7), np.arange(-24, 25)), -1).reshape(-1, 3)
    h, k, l = hkl.T
    glide = ((l % 2 == 0) | (h != -k)) & ((l % 2 == 0) | (h != 0)) & ((l % 2 == 0) | (k != 0))
    hkl = hkl[((-h + k + l) % 3 == 0) & glide & hkl.any(axis=1)]
    factor = dict(zip(map(tuple, virtual.hkl.tolist()), virtual.halo_factors, strict=True))
    blocks, weights = mosaic_blocks(mosaicity)
    far = 1.25 * scan.cut_radius
    total = np.zeros(row.shape)
    for step in (frame + (np.arange(5) - 2) / 5) * scan.experiment.angular_step + scan.experiment.phi:
        for block, weight in zip(blocks, weights, strict=True):
            Q = virtual.geometry.q_crystal(row, column, step) @ block.T
            for node in hkl:
                q = Q - virtual.group.cell.B @ node
                length2 = np.sum(q**2, axis=-1)
                near = length2 < far**2
                if not near.any():
                    continue
                fade = np.clip((far**2 - length2[near]) / (far**2 - scan.cut_radius**2), 0, 1)
                S = strength_of_modes(virtual.stiffness, Q[near], q[near], temperature, scan.density)
                total[near] += weight / 5 * factor[tuple(node.tolist())] * fade**2 * (3 - 2 * fade) * S
    found = virtual.intensity(frame)[::6, ::5]
    peaks = found > 1.1 * total
    assert peaks.sum() < 0.03 * peaks.size
    np.testing.assert_allclose(found[~peaks], total[~peaks], rtol=5e-4)


def test_mosaic_blocks_have_the_moments_of_a_gaussian() -> None:
    rotations, weights = mosaic_blocks(0.1)
    x, y, z = rotations[:, 2, 1], rotations[:, 0, 2], rotations[:, 1, 0]
    sigma = np.deg2rad(0.1)
    moments = {2: weights @ x**2, 4: weights @ z**4, 22: weights @ (x**2 * y**2), 11: weights @ (x * y)}
    assert moments[2] == pytest.approx(sigma**2, rel=1e-4)
    assert moments[4] == pytest.approx(3 * sigma**4, rel=1e-4)
    assert moments[22] == pytest.approx(sigma**4, rel=1e-4)
    assert abs(moments[11]) < 1e-9 * sigma**2
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), np.tile(np.eye(3), (13, 1, 1)), atol=1e-12)


def test_no_node_no_intensity() -> None:
    image = _core.scattering_image(
        np.full((3, 4, 3), 0.1), np.eye(3)[None], np.eye(3)[None], [1.0], np.empty((0, 3)), [], [],
        np.empty((0, 3, 3)), 0.01, np.eye(6), 40.0, 0.3, 0.4, 0.1,
        np.empty(0, np.float32), 0,
    )  # fmt: skip
    np.testing.assert_array_equal(image, np.zeros((3, 4)))
