"""What smears halos, against the exact geometry and random crystals; rocking curves; two-phonon scattering."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.fit.resolution import resolution, smeared_axes
from tds2el.fit.rocking import mosaicity_of, rocking_variance
from tds2el.fit.two_phonon import two_phonon
from tds2el.settings import Experiment

EXPERIMENT = Experiment(
    pixel_size=0.172, dist=120.0, lmbda=0.7, beam_tilt_angle=0.3, det_origin_X=700.0, det_origin_Y=650.0, d1=1.0,
    d2=-2.0, theta=4.0, theta_offset=0.0, omega=20.0, omega_offset=0.0, alpha=50.0, beta=7.0, kappa=-30.0, phi=5.0,
    angular_step=0.5, r1=20.0, r2=35.0, r3=10.0, orientation_codes=3, pol_degree=1.0, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
GEOMETRY = Geometry(EXPERIMENT)
ROW, COLUMN, ANGLE = 900.0, 300.0, 42.0
NODE = GEOMETRY.q_crystal(ROW, COLUMN, ANGLE)


def test_the_frame_sweeps_q_as_the_goniometer_turns_it():
    """To second order in the angle, at the node and beside it."""
    axis = smeared_axes(NODE, ANGLE, GEOMETRY, 0.0, 0.0, 0.0)[0]
    assert np.isclose(axis.half, np.deg2rad(0.25))
    for row, column in ((ROW, COLUMN), (ROW + 40, COLUMN - 25)):
        before, middle, after = (GEOMETRY.q_crystal(row, column, ANGLE + x) for x in (-0.25, 0.0, 0.25))
        moved = axis.half * (axis.shift + np.cross(axis.turn, middle - NODE))
        assert np.allclose((after - before) / 2, moved, rtol=0, atol=1e-5 * np.linalg.norm(moved))


def _covariance(axes):
    return sum(axis.variance * np.outer(axis.shift, axis.shift) / (axis.shift @ axis.shift) for axis in axes)


@pytest.mark.parametrize(("mosaicity", "bandwidth", "pixel"), [(0.2, 0, 0), (0, 2e-3, 0), (0, 0, 1), (0.1, 1e-3, 2)])
def test_second_moments_are_those_of_random_pixels(mosaicity, bandwidth, pixel):
    """Blocks, wavelengths, places in the pixel and angles in the frame drawn at random, with the exact geometry."""
    random, n = np.random.default_rng(1), 40_000
    rows, columns = ROW + pixel * random.uniform(-0.5, 0.5, (2, n))
    columns = COLUMN - ROW + columns
    Q = GEOMETRY.q_crystal(rows, columns, ANGLE + random.uniform(-0.25, 0.25, n))
    Q = Q + np.cross(np.deg2rad(mosaicity) * random.normal(size=(n, 3)), Q)
    Q = Q * (1 + bandwidth * random.normal(size=(n, 1)))
    expected = np.cov(Q.T)
    found = _covariance(smeared_axes(NODE, ANGLE, GEOMETRY, mosaicity, bandwidth, float(pixel)))
    assert np.abs(found - expected).max() < 0.03 * np.abs(expected).max()


def test_what_matters_is_averaged_and_what_is_too_coarse_is_named():
    def of(step, radius, mosaicity=0.0):
        geometry = Geometry(replace(EXPERIMENT, angular_step=step))
        return resolution([smeared_axes(NODE, ANGLE, geometry, mosaicity, 0.0, 0.0)], radius)

    fine, wide, coarse = of(0.02, 0.02), of(0.5, 0.02), of(3.0, 0.01)
    assert fine.smearing is None
    assert fine.effect[0] < 1e-3
    assert wide.smearing.numbers[0] > 1
    # 1/q² along the sweep, averaged over ± half a frame, is 1/(q² − h²).
    half = np.deg2rad(0.25) * np.linalg.norm(np.cross(GEOMETRY.phi_axis, NODE))
    assert np.isclose(wide.effect[0], (half / 0.02) ** 2, rtol=1e-3)
    assert coarse.coarse[0]
    assert coarse.smearing is None
    assert of(0.5, 0.02, mosaicity=0.2).smearing.numbers[0] > wide.smearing.numbers[0]


@pytest.mark.parametrize("width", [0.35, 0.6])
def test_rocking_curves_tell_the_mosaic_spread(width):
    """Poisson counts above a threshold in frames of 0.3°, of peaks that are not in the middle of a frame."""
    from scipy.stats import norm

    random, step, found = np.random.default_rng(2), 0.3, []
    for centre in random.uniform(-0.15, 0.15, 12):
        edges = (np.arange(-20, 22) - 0.5) * step
        share = np.diff(norm.cdf(edges, centre, width))
        row, column, frame = (x.ravel() for x in np.mgrid[10:15, 20:25, 0:41])
        profile = np.exp(-((row - 12) ** 2 + (column - 22) ** 2) / 3)
        counts = random.poisson(4e4 * profile * share[frame])
        kept = counts > 1500
        found.append(rocking_variance(row[kept], column[kept], frame[kept], counts[kept].astype(float), step))
    assert np.isclose(np.sqrt(np.median(found)), width, rtol=0.02)


def test_a_peak_in_two_frames_tells_nothing():
    row = column = np.zeros(2, dtype=int)
    assert np.isnan(rocking_variance(row, column, np.array([3, 4]), np.array([500.0, 400.0]), 0.1))


def test_two_phonons_by_the_formula_for_an_isotropic_crystal():
    """C = 100 GPa in all directions: kT/C is 0.0414 Å³ at 300 K."""
    tensor = np.diag([100.0, 100, 100, 100, 100, 100])
    tensor[:3, :3] = np.array([[100.0, -100, -100], [-100, 100, -100], [-100, -100, 100]])  # λ = −μ: Γ = 100 q²
    nodes = np.array([[1.0, 0, 0], [0, 0.6, 0.8], [0, 0, 2.0]])
    found = two_phonon(tensor, nodes, (0.009, 0.035), 300.0)
    assert np.allclose(found.ratio, np.pi**3 / 2 * 0.04142 * np.array([1, 1, 4]) * 0.035, rtol=1e-3)
    assert np.all(found.left < 0.2 * found.ratio)
    assert np.all(found.left > 0.001 * found.ratio)
    assert np.allclose(two_phonon(tensor, nodes, (0.009, 0.035), 30.0).ratio, found.ratio / 10)


def _harvest(width, saturation=1e9):
    """What `mosaicity_of` reads of a harvest: peaks of two nodes in frames of 0.5°, rocking with a width in degrees."""
    from scipy.stats import norm

    share = np.diff(norm.cdf((np.arange(-10, 12) - 0.5) * 0.5, 0.1, width))
    frame = np.flatnonzero(share > 0.02)
    place = np.full(len(frame), 7)
    nodes = np.stack([NODE, NODE + 0.3 * GEOMETRY.phi_axis])
    return SimpleNamespace(
        path="harvest.h5", n_peaks=np.array([len(frame)] * 2), saturation=saturation, centre=nodes,
        sweep=np.zeros(2, dtype=int), peaks=lambda blob: (1e6 * share[frame], None, None),
        peak_pixels=lambda blob: (place, place, frame),
    )  # fmt: skip


def test_mosaicity_is_the_rocking_width_less_what_an_oblique_axis_adds():
    harvest = _harvest(0.6)
    found, number = mosaicity_of(harvest, [GEOMETRY])
    sines = [np.linalg.norm(np.cross(GEOMETRY.phi_axis, node)) / np.linalg.norm(node) for node in harvest.centre]
    assert number == 2
    assert np.isclose(found, 0.6 * np.mean(sines), rtol=0.02)
    for useless in (_harvest(0.05), _harvest(0.6, saturation=1e5)):
        with pytest.raises(InputError, match="no Bragg peak above threshold in three frames and not saturated: give"):
            mosaicity_of(useless, [GEOMETRY])
