"""A small scan on disk, and its harvest by brute force over all pixels of all frames."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from fabio.cbfimage import CbfImage
from scipy.ndimage import binary_dilation

from tds2el.experiment.geometry import Geometry
from tds2el.harvest.file import LOSSES
from tds2el.settings import Experiment

SHAPE = (46, 61)
N_FRAMES = 40
CELL = (6.1, 7.2, 8.3, 88.0, 95.0, 103.0)
EXPERIMENT = {
    "pixel_size": 1.5, "dist": 80.0, "lmbda": 0.7, "beam_tilt_angle": 0.3, "det_origin_X": 20.3,
    "det_origin_Y": 25.8, "d1": 4.0, "d2": -9.0, "theta": 12.0, "theta_offset": 0.3, "omega": 57.3,
    "omega_offset": -0.3, "alpha": 50.0, "beta": 1.5, "kappa": 34.0, "phi": 20.0, "angular_step": 0.4, "r1": -130.0,
    "r2": 51.0, "r3": 61.0, "orientation_codes": 0, "pol_degree": 0.95, "normal_to_pol": (0.0, 0.1, 1.0),
    "sensor_thickness": 0.0, "sensor_mu": 0.0,
}  # fmt: skip


def reciprocal(cell):
    """(A, longest of a*, b*, c*), a* along x and c along z, from the metric alone."""
    lengths, angles = np.array(cell[:3]), np.deg2rad(cell[3:])
    cos = np.cos(angles)
    metric = np.outer(lengths, lengths) * [[1, cos[2], cos[1]], [cos[2], 1, cos[0]], [cos[1], cos[0], 1]]
    # a* ∥ x and c ∥ z make A upper triangular: with the axes' order reversed, the Cholesky factor.
    a = np.linalg.cholesky(metric[::-1, ::-1])[::-1, ::-1]
    return a, np.sqrt(np.diag(np.linalg.inv(metric)).max())


@dataclass
class Scan:
    """A scan in a folder; `run` harvests it, `brute` says what the harvest must be."""

    folder: Path
    experiment: dict = field(default_factory=lambda: dict(EXPERIMENT))
    options: dict = field(default_factory=dict)

    def __post_init__(self):
        rng = np.random.default_rng(5)
        self._q = {}
        self.geometry = Geometry(Experiment(**self.experiment))
        self.a, self.unit = reciprocal(CELL)
        self.images = rng.poisson(8.0, (N_FRAMES, *SHAPE)).astype(np.int32)
        self.images[rng.random(self.images.shape) < 0.02] = -1
        self.images[rng.random(self.images.shape) < 0.001] = 500
        self.mask = rng.random(SHAPE) > 0.05
        self.denominator = rng.uniform(0.8, 1.2, N_FRAMES)
        self.ranges = []
        pixels = [
            (10, 10, 12.0),
            (30, 45, 20.0),
            (22, 30, 30.0),
            (40, 15, 6.0),
            (5, 50, 25.0),
            (15, 5, 35.0),
            (35, 25, 9.0),
        ]
        q = np.array([self.geometry.q_crystal(r, c, self.geometry.phi(n)) for r, c, n in pixels])
        self.hkl = [tuple(int(i) for i in node) for node in np.unique(np.rint(q @ self.a.T), axis=0)]
        self.options = {
            "DeltaQ_max": 0.5, "DeltaQ_min": 0.12, "threshold": 100, "threshold_action": "frame",
            "collectSpots": self.hkl, "ascii_generators": "1~", "Temperature": 300, "density": 2.0,
            "images_prefix": "frame_", "images_postfix": ".cbf", "filter_file": "mask.npy",
            "normalisation_file": "monitor.txt", "save_to_file": "harvest.h5", "load_from_file": None,
        } | self.options  # fmt: skip
        self.write()

    def write(self, header=None):
        for n, image in enumerate(self.images):
            CbfImage(header=header, data=image).write(str(self.frame(n)))
        np.save(self.folder / "mask.npy", self.mask.astype(np.uint8))
        rows = [f"{self.frame(n)} {d!r}" for n, d in enumerate(self.denominator.tolist())]
        (self.folder / "monitor.txt").write_text("\n".join(rows) + "\n")
        cell = dict(zip(("AA", "BB", "CC", "aAA", "aBB", "aCC"), CELL, strict=True))
        conf = self.experiment | cell | self.options
        (self.folder / "conf.par").write_text("".join(f"{k} = {v!r}\n" for k, v in conf.items()))
        (self.folder / "input.par").write_text("conf_file = 'conf.par'\n")

    def frame_mask(self, frame):
        """The mask of a frame, with those of `ranges` (first, last, mask)."""
        return np.logical_and.reduce([self.mask, *(m for first, last, m in self.ranges if first <= frame <= last)])

    def frame(self, n):
        return self.folder / f"frame_{n:04d}.cbf"

    @property
    def path(self):
        return self.folder / "harvest.h5"

    def run(self, *overrides):
        """Harvest, and open what is written: harvest.h5 unless save_to_file is among the overrides."""
        from tds2el.harvest.collect import harvest
        from tds2el.harvest.file import HarvestFile
        from tds2el.parallel import World
        from tds2el.settings import load_settings

        return HarvestFile(harvest(load_settings(self.folder / "input.par", overrides), World()))

    def brute(self, node, frame, action="frame", centring=None, dmax=0.5, threshold=100, shift=0.0):
        """(points, peaks, losses, hot) of one node in one frame; points are rows of row, column, counts, κ, Q."""
        rows, columns = np.indices(SHAPE)
        if frame not in self._q:
            self._q[frame] = self.geometry.q_crystal(rows, columns, self.geometry.phi(frame))
        q = self._q[frame] - shift
        g = np.linalg.inv(self.a) @ node
        distance = np.linalg.norm(q - g, axis=-1)
        ball = distance <= dmax * self.unit
        foreign = np.zeros(SHAPE, dtype=bool)
        for step in np.indices((5, 5, 5)).reshape(3, -1).T - 2 if centring else ():
            if step.any() and (centring == "P" or (np.array(node) + step).sum() % 2 == 0):
                other = np.linalg.norm(q[ball] - np.linalg.inv(self.a) @ (node + step), axis=-1)
                foreign[ball] |= other < distance[ball]
        counts = self.images[frame]
        mask = self.frame_mask(frame)
        hot = ball & mask & (counts > threshold)
        rejected = np.full(SHAPE, hot.any()) if action == "frame" else binary_dilation(hot, np.ones((5, 5)))
        shell = ball & (distance >= 0.12 * self.unit)
        fates = np.select([foreign, ~mask, counts < 0, rejected], [0, 1, 2, 3], 4)
        losses = [int(np.count_nonzero(shell & (fates == fate))) for fate in range(4)]
        kappa = self.geometry.polarisation(rows, columns) * self.geometry.solid_angle(rows, columns)
        kappa = kappa * self.denominator[frame]

        def table(chosen):
            r, c = np.nonzero(chosen)
            return np.column_stack([r, c, counts[r, c], kappa[r, c], q[r, c]])

        return table(shell & (fates == 4)), table(hot & ~foreign), losses, bool(hot.any())

    def check(self, harvest, fewest=900, **options):
        """Every blob's points, peaks and tallies, frame by frame; and no frame with points outside the blobs."""
        total, everywhere = 0, []
        for blob in range(harvest.n_blobs):
            node, shift = harvest.hkl[blob], harvest.shift[blob]
            np.testing.assert_allclose(harvest.centre[blob], np.linalg.inv(self.a) @ node, atol=1e-12)
            found = [self.brute(node, n, shift=shift, **options) for n in range(N_FRAMES)]
            everywhere += [len(f[0]) for f in found]
            span = range(harvest.first_frame[blob], harvest.last_frame[blob] + 1)
            found = [found[n] for n in span]
            points, peaks = (np.concatenate([f[i] for f in found]) for i in (0, 1))
            frames = np.repeat(list(span), [len(f[0]) for f in found])
            counts, kappa, q = harvest.points(blob)
            row, column, frame = harvest.pixels(blob)
            np.testing.assert_array_equal(np.column_stack([row, column, counts]), points[:, :3])
            np.testing.assert_array_equal(frame, frames)
            np.testing.assert_allclose(kappa, points[:, 3], rtol=1e-6)
            np.testing.assert_allclose(q, points[:, 4:], rtol=0, atol=1e-13)
            counts, kappa, q = harvest.peaks(blob)
            np.testing.assert_array_equal(counts, peaks[:, 2])
            np.testing.assert_allclose(kappa, peaks[:, 3], rtol=1e-6)
            np.testing.assert_allclose(q, peaks[:, 4:], rtol=0, atol=1e-13)
            losses = np.sum([f[2] for f in found], axis=0)
            assert [harvest.lost[cause][blob] for cause in LOSSES] == losses.tolist()
            assert harvest.frames_over_threshold[blob] == sum(f[3] for f in found)
            total += len(points)
        # Each node passes once in so short a scan; those that have no blob must have no points.
        assert len({tuple(hkl) for hkl in harvest.hkl}) == harvest.n_blobs
        for node in set(self.hkl) - {tuple(hkl) for hkl in harvest.hkl.tolist()}:
            everywhere += [len(self.brute(node, n, **options)[0]) for n in range(N_FRAMES)]
        assert total == sum(everywhere) == harvest.n_points.sum() > fewest


@pytest.fixture
def scan(tmp_path):
    return Scan(tmp_path)


@pytest.fixture
def make_scan(tmp_path):
    def make(**changes):
        experiment = EXPERIMENT | {k: v for k, v in changes.items() if k in EXPERIMENT}
        return Scan(tmp_path, experiment, {k: v for k, v in changes.items() if k not in EXPERIMENT})

    return make


@pytest.fixture(autouse=True)
def _fabio_is_quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="fabio")
        yield
