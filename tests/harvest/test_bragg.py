"""Integrated Bragg intensities: swept volumes against the Lorentz factor, sums against peaks of known intensity."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from tds2el.experiment.geometry import Geometry
from tds2el.experiment.mask import FrameMasks
from tds2el.harvest.bragg import BraggFrames, integrate_peaks, swept_volume
from tds2el.settings import Experiment

EXPERIMENT = Experiment(
    pixel_size=0.3, dist=90.0, lmbda=0.6, beam_tilt_angle=0.3, det_origin_X=100.0, det_origin_Y=95.0, d1=0.5, d2=-2.0,
    theta=3.0, theta_offset=0.0, omega=20.0, omega_offset=0.0, alpha=50.0, beta=0.0, kappa=30.0, phi=0.0,
    angular_step=0.3, r1=10.0, r2=20.0, r3=30.0, orientation_codes=2, pol_degree=0.95, normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip
SHAPE, N_FRAMES, WIDTH, RADIUS = (201, 191), 60, 0.006, 0.03


@dataclass
class Series:
    """Frames that are computed when they are read."""

    image: object
    shape: tuple[int, int] = SHAPE
    n_frames: int = N_FRAMES
    angle_index: np.ndarray = None

    def __post_init__(self):
        self.angle_index = np.arange(self.n_frames, dtype=float)

    def read(self, frame):
        return self.image(frame)


@pytest.fixture(scope="module")
def geometry():
    return Geometry(EXPERIMENT)


@pytest.fixture(scope="module")
def centres(geometry):
    """On the sphere in the middle of the scan, at the first, and at the edge of the detector."""
    return np.array(
        [
            geometry.q_crystal(150.0, 60.0, geometry.phi(30)),
            geometry.q_crystal(50.0, 140.0, geometry.phi(0)),
            geometry.q_crystal(198.0, 60.0, geometry.phi(30)),
        ]
    )


def frames_of(geometry, centres, integral, background=0.0, attenuation=1.0, sub=5):
    """Expected counts of Gaussian peaks of ∫ I d³s = `integral` on a flat background."""
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    kappa = geometry.polarisation(row, column) * geometry.solid_angle(row, column) / attenuation
    height = integral / (WIDTH * np.sqrt(2 * np.pi)) ** 3

    def image(frame):
        total = np.full(SHAPE, background)
        for step in (np.arange(sub) + 0.5) / sub - 0.5:
            q = geometry.q_crystal(row, column, geometry.phi(frame + step))
            for centre in centres:
                total += height / sub * np.exp(-0.5 * np.sum((q - centre) ** 2, axis=-1) / WIDTH**2)
        return kappa * total

    unit = np.full(N_FRAMES, 1 / attenuation)
    return BraggFrames(geometry, Series(image), FrameMasks(np.ones(SHAPE, dtype=bool), ()), unit, 1e12)


def angles_of(geometry):
    return geometry.phi(np.array([30.0, 0.0, 30.0]))


def test_swept_volume_is_solid_angle_times_lorentz_factor(geometry):
    """dΩ/λ² · |Q̇·k̂| Δφ, with Q̇ from the axis of the last rotation in the lab."""
    random = np.random.default_rng(2)
    row, column = random.uniform(0, 190, (2, 40))
    phi, tiny = geometry.phi(17.0), 1e-5
    to_lab = geometry.lab_to_crystal(phi).T
    p = np.stack([row, column, np.ones(40)], axis=-1) @ geometry.pixel_to_lab.T
    length = np.linalg.norm(p, axis=-1)
    solid_angle = EXPERIMENT.pixel_size**2 * EXPERIMENT.dist / length**3
    turned = geometry.lab_to_crystal(phi + tiny) - geometry.lab_to_crystal(phi - tiny)
    rate = geometry.q_lab(row, column) @ (to_lab @ turned).T / (2 * tiny) * EXPERIMENT.angular_step
    speed = np.abs(np.sum(rate * p / length[:, None], axis=-1))
    expected = solid_angle / EXPERIMENT.lmbda**2 * speed
    assert swept_volume(geometry, row, column, 17.0) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("attenuation", [1.0, 50.0])
def test_a_peak_has_its_intensity(geometry, centres, attenuation):
    scan = frames_of(geometry, centres[:1], 3e-3, background=4.0, attenuation=attenuation)
    (peak,) = integrate_peaks(scan, centres[:1], centres[:1], angles_of(geometry)[:1], RADIUS)
    assert not peak.flaw
    ball = 4 / 3 * np.pi * RADIUS**3
    assert peak.volume == pytest.approx(ball, rel=0.02)
    assert peak.integral - 4.0 * peak.volume == pytest.approx(3e-3, rel=0.003)


def test_variance_is_that_of_counting(geometry, centres):
    scan = frames_of(geometry, centres[:1], 2e-5, background=0.5)
    random = np.random.default_rng(4)
    images = {frame: scan.series.read(frame) for frame in range(15, 46)}
    found = []
    for _ in range(40):
        drawn = replace(scan, series=Series(lambda frame: random.poisson(images[frame]).astype(np.int32)))
        found += integrate_peaks(drawn, centres[:1], centres[:1], angles_of(geometry)[:1], RADIUS)
    spread = np.var([peak.integral for peak in found])
    assert np.mean([peak.variance for peak in found]) == pytest.approx(spread, rel=0.6)


def test_what_cannot_be_used_says_why(geometry, centres):
    scan = frames_of(geometry, centres, 3e-3)
    peaks = integrate_peaks(scan, centres, centres, angles_of(geometry), RADIUS)
    assert [peak.flaw for peak in peaks] == ["", "not a whole passage", "not wholly on the detector"]
    one = (centres[:1], centres[:1], angles_of(geometry)[:1], RADIUS)
    assert integrate_peaks(replace(scan, largest=10.0), *one)[0].flaw == "saturated"
    mask = np.ones(SHAPE, dtype=bool)
    mask[148:152] = False
    assert integrate_peaks(replace(scan, masks=FrameMasks(mask, ())), *one)[0].flaw == "masked in part"
    other = centres[:1], centres[:1], angles_of(geometry)[:1] + 40, RADIUS
    assert integrate_peaks(scan, *other)[0].flaw == "not in the scan"
