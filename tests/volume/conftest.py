"""A small scan on disk, and its volume by brute force over all pixels of all frames."""

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fabio.cbfimage import CbfImage

from tds2el.crystal.cell import Cell
from tds2el.experiment.geometry import Geometry
from tds2el.settings import Experiment
from tds2el.volume.grid import Grid

SHAPE = (46, 61)
N_FRAMES = 30
CELL = (6.1, 7.2, 8.3, 88.0, 95.0, 103.0)
EXPERIMENT = {
    "pixel_size": 1.5, "dist": 80.0, "lmbda": 0.7, "beam_tilt_angle": 0.3, "det_origin_X": 20.3,
    "det_origin_Y": 25.8, "d1": 4.0, "d2": -9.0, "theta": 12.0, "theta_offset": 0.3, "omega": 57.3,
    "omega_offset": -0.3, "alpha": 50.0, "beta": 1.5, "kappa": 34.0, "phi": 20.0, "angular_step": 0.8, "r1": -130.0,
    "r2": 51.0, "r3": 61.0, "orientation_codes": 0, "pol_degree": 0.95, "normal_to_pol": (0.0, 0.1, 1.0),
}  # fmt: skip


def orthogonalisation(cell):
    """A, rows a, b, c with a* along x and c along z, from the metric alone."""
    lengths, angles = np.array(cell[:3]), np.deg2rad(cell[3:])
    cos = np.cos(angles)
    metric = np.outer(lengths, lengths) * [[1, cos[2], cos[1]], [cos[2], 1, cos[0]], [cos[1], cos[0], 1]]
    # a* ∥ x and c ∥ z make A upper triangular: with the axes' order reversed, the Cholesky factor.
    return np.linalg.cholesky(metric[::-1, ::-1])[::-1, ::-1]


@dataclass
class Scan:
    """A scan in a folder; `run` makes its volume, `brute` says what that must be."""

    folder: Path
    experiment: dict = field(default_factory=lambda: dict(EXPERIMENT))
    cell: tuple = CELL
    options: dict = field(default_factory=dict)
    n_frames: int = N_FRAMES

    def __post_init__(self):
        rng = np.random.default_rng(5)
        self.geometry = Geometry(Experiment(**self.experiment))
        self.a = orthogonalisation(self.cell)
        self.images = rng.poisson(8.0, (self.n_frames, *SHAPE)).astype(np.int32)
        self.images[rng.random(self.images.shape) < 0.02] = -1
        self.images[rng.random(self.images.shape) < 0.001] = 500
        self.mask = rng.random(SHAPE) > 0.05
        self.denominator = rng.uniform(0.8, 1.2, self.n_frames)
        self.ranges = []
        self.options = {
            "DO_ELASTIC": 0, "images_prefix": "frame_", "images_postfix": ".cbf", "filter_file": "mask.npy",
            "normalisation_file": "monitor.txt", "volume_shape": (23, 31, 27),
        } | self.options  # fmt: skip
        self.kappa = self.geometry.polarisation(*np.indices(SHAPE)) * self.geometry.solid_angle(*np.indices(SHAPE))

    def write(self, options=()):
        """Write frames and par-files, with further options."""
        for n, image in enumerate(self.images):
            CbfImage(data=image).write(str(self.frame(n)))
        np.save(self.folder / "mask.npy", self.mask.astype(np.uint8))
        rows = [f"{self.frame(n)} {d!r}" for n, d in enumerate(self.denominator.tolist())]
        (self.folder / "monitor.txt").write_text("\n".join(rows) + "\n")
        for i, (_, _, mask) in enumerate(self.ranges):
            np.save(self.folder / f"range_{i}.npy", mask.astype(np.uint8))
        ranges = [[first, last, f"range_{i}.npy"] for i, (first, last, _) in enumerate(self.ranges)]
        cell = dict(zip(("AA", "BB", "CC", "aAA", "aBB", "aCC"), self.cell, strict=True))
        conf = self.experiment | cell | self.options | {"filter_ranges": ranges or None} | dict(options)
        (self.folder / "conf.par").write_text("".join(f"{k} = {v!r}\n" for k, v in conf.items()))
        (self.folder / "input.par").write_text("conf_file = 'conf.par'\n")

    def frame(self, n):
        return self.folder / f"frame_{n:04d}.cbf"

    @property
    def path(self):
        return self.folder / "volume.h5"

    def run(self, **options):
        """Write all, reconstruct, and open the volume."""
        from tds2el.parallel import World
        from tds2el.settings import load_settings
        from tds2el.volume.file import VolumeFile
        from tds2el.volume.reconstruct import reconstruct

        self.write(options)
        return VolumeFile(reconstruct(load_settings(self.folder / "input.par"), World()))

    def good(self, n):
        """Which pixels of a frame are data."""
        masks = [mask for first, last, mask in self.ranges if first <= n <= last]
        return np.logical_and.reduce([self.mask, self.images[n] >= 0, *masks])

    def places(self, n, offset=0.0, kind="hkl"):
        """hkl, or Q, of all pixels in frame n, at an angle off its middle (degrees)."""
        phi = self.experiment["phi"] + n * self.experiment["angular_step"] + offset
        q = self.geometry.q_crystal(*np.indices(SHAPE), phi)
        return q @ self.a.T if kind == "hkl" else q

    def nodes(self, grid, place):
        """Which node is nearest to places (..., 3): numbers (..., 3), and whether it is in the grid."""
        uvw = (place - grid.origin) @ np.linalg.inv(grid.basis)
        axes = [grid.axis(n) for n in range(3)]
        step = [axis[1] - axis[0] if axis.size > 1 else np.ptp(grid.limits[n]) for n, axis in enumerate(axes)]
        node = np.floor((uvw - [axis[0] for axis in axes]) / step + 0.5).astype(int)
        return node, ((node >= 0) & (node < grid.shape)).all(axis=-1)

    def brute(self, grid, microsteps=1, frames=None):
        """ΣN, Σκ and the number of pixels of every voxel."""
        step = self.experiment["angular_step"]
        offsets = step * ((np.arange(microsteps) + 0.5) / microsteps - 0.5)
        sums = np.zeros((3, *grid.shape))
        for n in range(self.n_frames) if frames is None else frames:
            for offset in offsets:
                node, inside = self.nodes(grid, self.places(n, offset, grid.kind))
                chosen = inside & self.good(n)
                where = tuple(node[chosen].T)
                np.add.at(sums[0], where, self.images[n][chosen])
                np.add.at(sums[1], where, self.kappa[chosen] * self.denominator[n])
                np.add.at(sums[2], where, 1)
        sums[:2] /= microsteps
        sums[2] /= microsteps
        return sums

    def check(self, volume, microsteps=1, frames=None, fewest=5000):
        """Every voxel's sums, intensity and error."""
        counts, correction, pixels = self.brute(volume.grid, microsteps, frames)
        assert pixels.sum() > fewest
        np.testing.assert_allclose(volume.counts[()], counts, rtol=1e-14, atol=1e-12)
        np.testing.assert_allclose(volume.correction[()], correction, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(volume.pixels[()], pixels, rtol=1e-6)
        filled = pixels > 0
        intensity, errors = volume.intensity[()], volume.intensity_errors[()]
        assert np.isnan(intensity[~filled]).all()
        assert np.isnan(errors[~filled]).all()
        np.testing.assert_allclose(intensity[filled], (counts / np.where(filled, correction, 1))[filled], rtol=1e-6)
        expected = np.sqrt(np.maximum(counts, 1)) / np.where(filled, correction, 1)
        np.testing.assert_allclose(errors[filled], expected[filled], rtol=1e-6)


@pytest.fixture
def scan(tmp_path):
    return Scan(tmp_path)


@pytest.fixture
def make_scan(tmp_path):
    def make(cell=CELL, n_frames=N_FRAMES, **experiment):
        return Scan(tmp_path, EXPERIMENT | experiment, cell, n_frames=n_frames)

    return make


@pytest.fixture(autouse=True)
def _fabio_is_quiet():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="fabio")
        yield


TRICLINIC = Cell(5.0, 6.0, 7.0, 80, 95, 112)


def places(grid: Grid) -> np.ndarray:
    """Q of all nodes, (n0, n1, n2, 3)."""
    axes = [np.linspace(*limits, n) for limits, n in zip(grid.limits, grid.shape, strict=True)]
    place = grid.origin + np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) @ grid.basis
    return place @ grid.cell.B.T if grid.kind == "hkl" else place


def _volume(kind="hkl", shape=(9, 10, 11), limits=((-2, 2), (-3, 3), (-2.5, 5)), basis=None, origin=(0, 0, 0), **own):
    """What is used of a VolumeFile; counts and correction can be given, functions of Q."""
    basis = np.eye(3) if basis is None else basis
    grid = Grid(kind, TRICLINIC, shape, np.array(limits, dtype=float), basis, np.array(origin, dtype=float))
    q = places(grid)
    random = np.random.default_rng(5)
    counts = own["counts"](q) if "counts" in own else random.poisson(3.0, shape).astype(float)
    correction = own["correction"](q) if "correction" in own else random.uniform(0.5, 1.5, shape)
    if "correction" not in own:
        correction[random.random(shape) < 0.2] = 0
        counts[correction == 0] = 0
    with np.errstate(invalid="ignore"):
        intensity = (counts / correction).astype(np.float32)
    return SimpleNamespace(
        path=Path("volume.h5"), grid=grid, cell=TRICLINIC, counts=counts, correction=correction, background=None,
        intensity=intensity,
    )  # fmt: skip


@pytest.fixture
def make_volume():
    """A volume of a triclinic crystal; keywords are those of `_volume`."""
    return _volume
