"""A sweep in plain vectors, and hkl of its pixels worked out from these alone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds2el.crystal.cell import CELL_OPTIONS, Cell
from tds2el.experiment.geometry import Geometry
from tds2el.interchange.conf import experiment_of
from tds2el.interchange.lab import Detector, Sweep

SHAPE = (619, 487)


@dataclass(frozen=True)
class Pixels:
    """Places on the detector, and numbers of frames from the first."""

    row: np.ndarray
    column: np.ndarray
    frame: np.ndarray

    def hkl_of(self, values: dict[str, object]) -> np.ndarray:
        """By our geometry, of the options of a conf_file."""
        geometry = Geometry(experiment_of(values))
        cell = Cell(*(float(str(values[name])) for name in CELL_OPTIONS))
        return np.asarray(geometry.q_crystal(self.row, self.column, geometry.phi(self.frame)) @ cell.A.T)

    def hkl_in_lab(self, sweep: Sweep) -> np.ndarray:
        """By vectors in the sweep's own lab, with DIALS's parallax."""
        d, found = sweep.detector, []
        for row, column, frame in zip(self.row, self.column, self.frame, strict=True):
            ray = d.origin + d.pixel_size * (row * d.slow + column * d.fast)
            if d.sensor_thickness:
                t, mu, s1 = d.sensor_thickness, d.sensor_mu, ray / np.linalg.norm(ray)
                cosine = abs(s1 @ np.cross(d.fast, d.slow))
                path = 1 / mu - (t / cosine + 1 / mu) * np.exp(-mu * t / cosine)
                ray = ray - path * ((s1 @ d.fast) * d.fast + (s1 @ d.slow) * d.slow)
            q = (ray / np.linalg.norm(ray) + sweep.source) / sweep.wavelength
            angle = np.deg2rad(sweep.start + (frame + 0.5) * sweep.width)
            turned = Rotation.from_rotvec(angle * sweep.axis).inv().apply(q)
            found.append(np.linalg.solve(sweep.UB, turned))
        return np.array(found)


@pytest.fixture
def pixels() -> Pixels:
    random = np.random.default_rng(11)
    return Pixels(random.uniform(0, SHAPE[0], 40), random.uniform(0, SHAPE[1], 40), random.integers(0, 900, 40))


def random_sweep(seed: int, *, mirrored: bool = False, thick: bool = False) -> Sweep:
    """A detector and a crystal that lie anyhow in a lab that lies anyhow, the axis not far from across the beam."""
    random = np.random.default_rng(seed)
    lab = Rotation.random(random_state=seed).as_matrix()
    source, axis = lab @ [0, 0, 1], lab @ (np.array([1, 0, 0]) + random.uniform(-0.3, 0.3, 3))
    tilt = Rotation.from_rotvec(lab @ np.append(random.uniform(-0.7, 0.7, 2), random.uniform(-3, 3))).as_matrix()
    fast, slow = tilt @ lab @ [1, 0, 0], tilt @ lab @ ([0, -1, 0] if mirrored else [0, 1, 0])
    dist, foot = random.uniform(80, 300), random.uniform(-50, 600, 2)
    normal = tilt @ lab @ [0, 0, -1]
    cell = Cell(5.475, 8.211, 12.158, 88.0, 93.0, 104.0)
    return Sweep(
        Detector(
            dist * normal - 0.172 * (foot[0] * slow + foot[1] * fast),
            slow,
            fast,
            0.172,
            SHAPE,
            *((0.45, 1.3) if thick else (0.0, 0.0)),
        ),
        source=source,
        wavelength=0.6889,
        axis=axis / np.linalg.norm(axis),
        start=float(random.uniform(-180, 180)),
        width=float(random.choice([0.1, -0.25])),
        UB=Rotation.random(random_state=seed + 1).as_matrix() @ cell.B,
        normal=lab @ [0, 1, 0],
        polarisation=0.97,
        first_number=1,
        n_frames=900,
    )


@pytest.fixture
def sweep() -> Sweep:
    return replace(random_sweep(3), width=0.1)
