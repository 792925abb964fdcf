"""collectSpots = "auto" at a harvest: the choice against the truth of a simulated scan, by brute force, over ranks."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.harvest.auto import candidates, measured_brightness, with_chosen_spots
from tds2el.harvest.file import HarvestFile
from tds2el.harvest.inputs import read_scan
from tds2el.harvest.reach import brightest_apart, longest_q, sphere_distance, whole_passages
from tds2el.parallel import World
from tds2el.settings import load_settings
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import load_scan
from tds2el.simulate.scan import simulate_scan

from .test_ranks import MPIRUN, datasets, run

N_SPOTS = 8
SCAN = """\
pixel_size = 0.4
dist = 90.0
lmbda = 0.7
det_origin_X = 120.0
det_origin_Y = 101.0
phi = 10.0
angular_step = 0.5
r1 = 20.0
r2 = 35.0
r3 = 10.0
AA = 4.990
BB = AA
CC = 17.061
aAA = 90.0
aBB = 90.0
aCC = 120.0
ascii_generators = "1~,3(z),2(y)"
centring = "R -3 c:H"
constants = {"A11": 147.1, "A33": 85.3, "A44": 34.0, "A66": 46.5, "A13": 53.7, "A15": -20.6}
shape = [242, 202]
gap_rows = [[80, 84]]
n_frames = 120
n_hot_pixels = 20
count_level = 60
DeltaQ_min = 0.04
DeltaQ_max = 0.15
seed = 7
output_folder = "scan"
"""


class Simulated:
    """A simulated scan whose par-file says auto, and what is true of it."""

    def __init__(self, folder):
        (folder / "scan.par").write_text(SCAN, encoding="utf-8")
        self.virtual = VirtualScan(load_scan(folder / "scan.par"))
        simulate_scan(self.virtual, World(), lambda frames, total: frames)
        self.folder = folder / "scan"
        self.path = self.folder / "harvest.h5"
        text = (self.folder / "experiment.par").read_text(encoding="utf-8") + (self.folder / "input.par").read_text()
        assert "harvest.h5" in text
        assert "collectSpots" in text

    def settings(self, **options):
        given = {"collectSpots": "auto", "n_spots": N_SPOTS} | options
        return load_settings(self.folder / "input.par", [f"{name}={value!r}" for name, value in given.items()])

    def truth(self, hkl):
        """|F|²·S, averaged over directions at the middle radius, of nodes."""
        place = {tuple(node): i for i, node in enumerate(self.virtual.hkl.tolist())}
        return self.virtual._halos.brightness[[place[tuple(node)] for node in hkl.tolist()]]


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    return Simulated(tmp_path_factory.mktemp("auto"))


@pytest.fixture(scope="module")
def measured(simulated):
    scan = read_scan(simulated.settings())
    found = candidates(scan, "R -3 c:H")
    return scan, found, measured_brightness(found, scan, World())


def test_measured_brightness_ranks_reflections_as_the_truth_does(simulated, measured):
    _, found, brightness = measured
    truth = simulated.truth(found.hkl)
    assert len(truth) > 30
    assert spearmanr(brightness, truth).statistic > 0.85
    bright = truth > 0.1 * truth.max()
    assert np.all(brightness[bright] > 0)
    assert np.corrcoef(brightness[bright], truth[bright])[0, 1] > 0.75  # two cuts see S in some directions only


def test_chosen_reflections_are_bright_spread_and_noted(simulated, measured, caplog):
    scan, found, _ = measured
    with caplog.at_level("INFO", logger="tds2el"):
        settings = with_chosen_spots(simulated.settings(), scan, World())
    chosen = np.array(settings.harvest.collectSpots)
    assert len(chosen) == N_SPOTS
    assert settings.values["collectSpots"] == chosen.tolist()
    lines = [record.message for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith(f"collectSpots = auto: {N_SPOTS} of {len(found.hkl)} reflections")
    assert all(str(tuple(node)) in lines[0] for node in chosen.tolist())
    truth = simulated.truth(found.hkl)
    assert simulated.truth(chosen).min() > np.quantile(truth, 0.6)
    assert simulated.truth(chosen).max() == truth.max()
    units = chosen @ scan.cell.B.T
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    assert np.abs(units @ units.T)[~np.eye(N_SPOTS, dtype=bool)].max() < np.cos(np.deg2rad(3))


def test_whole_passages_by_brute_force(simulated, measured):
    """No pixel of the ball in the first or the last frame, nor off the detector; and few such nodes are missed."""
    scan, found, _ = measured
    geometry, shape, ball = scan.geometry, scan.series.shape, scan.delta_max
    border = 20
    row, column = (i.astype(float) for i in np.mgrid[-border : shape[0] + border : 2, -border : shape[1] + border : 2])
    outside = (row < 0) | (row >= shape[0]) | (column < 0) | (column >= shape[1])
    nodes = simulated.virtual.hkl @ scan.cell.B.T
    on, off, ends = (np.zeros(len(nodes), dtype=bool) for _ in range(3))
    frames = scan.series.n_frames
    for n in range(frames):
        q = geometry.q_crystal(row, column, geometry.phi(n))
        for i, node in enumerate(nodes):
            if abs(sphere_distance(geometry, nodes[i : i + 1], np.array([n]))[0, 0]) >= ball:
                continue
            near = np.linalg.norm(q - node, axis=-1) < ball
            on[i] |= (near & ~outside).any()
            off[i] |= (near & outside).any()
            ends[i] |= near.any() and n in (0, frames - 1)
    whole = {tuple(node) for node in simulated.virtual.hkl[on & ~off & ~ends].tolist()}
    taken = {tuple(node) for node in found.hkl.tolist()}
    assert taken <= whole
    assert len(taken) > 0.8 * len(whole)  # margins are on the safe side, and grazing passages do not count


def test_a_full_turn_counts_every_passage_and_a_missing_frame_none(simulated, measured):
    scan, found, _ = measured
    geometry = Geometry(replace(simulated.settings().experiment, angular_step=0.5))
    once = whole_passages(geometry, found.nodes, np.arange(120.0), scan.delta_max, scan.series.shape)
    turn = whole_passages(geometry, found.nodes, np.arange(720.0), scan.delta_max, scan.series.shape)
    assert set(once.node) == set(range(len(found.nodes))) == set(turn.node)
    assert len(turn.node) > len(once.node)
    assert not turn.only.any()
    assert once.only.any()
    # Without the frame in the middle of the first node's passage.
    index = np.delete(np.arange(120.0), (once.first[0] + once.last[0]) // 2)
    assert 0 not in whole_passages(geometry, found.nodes, index, scan.delta_max, scan.series.shape).node


def test_distance_from_the_sphere_and_longest_q(measured):
    scan, found, _ = measured
    geometry, shape = scan.geometry, scan.series.shape
    # A pixel's Q is on the sphere.
    q = geometry.q_crystal([3.0, 100.0], [7.0, 40.0], geometry.phi(11))
    np.testing.assert_allclose(sphere_distance(geometry, q, np.array([11.0]))[:, 0], 0, atol=1e-12)
    assert sphere_distance(geometry, 1.01 * q, np.array([11.0])).min() > 0
    row, column = np.mgrid[: shape[0], : shape[1]]
    assert longest_q(geometry, shape) == np.linalg.norm(geometry.q_lab(row, column), axis=-1).max()
    np.testing.assert_allclose(
        found.depth,
        [
            abs(sphere_distance(geometry, found.nodes[n : n + 1], np.array([float(f)]))[0, 0])
            for n, f in zip(found.node, found.frame, strict=True)
        ],
        atol=1e-12,
    )
    assert np.abs(found.depth - (scan.delta_min + scan.delta_max) / 2).max() < scan.delta_max / 2


def test_separation_is_relaxed_and_faint_ones_are_left_out():
    angle = np.deg2rad([0.0, 4.0, 8.0, 188.0, 40.0, 90.0])
    nodes = np.column_stack([np.cos(angle), np.sin(angle), np.zeros(6)])
    brightness = np.array([10.0, 9.0, 8.0, 7.9, 5.0, 0.29])
    assert brightest_apart(nodes, brightness, 9, (10.0,)).tolist() == [0, 4]
    assert brightest_apart(nodes, brightness, 9, (10.0, 7.0)).tolist() == [0, 4, 2]
    assert brightest_apart(nodes, brightness, 9, (10.0, 7.0, 5.0, 3.0)).tolist() == [0, 4, 2, 1]
    assert brightest_apart(nodes, brightness, 2, (10.0, 3.0)).tolist() == [0, 4]
    assert brightest_apart(nodes, np.zeros(6), 2, (10.0,)).tolist() == []


def test_nothing_to_choose(simulated, measured):
    scan, _, _ = measured
    settings = simulated.settings()
    with pytest.raises(InputError, match=r"no reflection passes as a whole.*smaller DeltaQ_max") as error:
        with_chosen_spots(settings, replace(scan, delta_max=1.0), World())
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="has a halo above the noise; check geometry"):
        with_chosen_spots(settings, replace(scan, threshold=-1.0), World())


@pytest.mark.skipif(not MPIRUN.exists(), reason="no mpirun")
def test_same_harvest_for_any_number_of_ranks(simulated):
    path = simulated.folder / "input.par"
    text = path.read_text(encoding="utf-8")
    conf = simulated.folder / "experiment.par"
    lines = conf.read_text(encoding="utf-8").splitlines(keepends=True)
    conf.write_text("".join(line for line in lines if not line.startswith("collectSpots")), encoding="utf-8")
    path.write_text(text + f"collectSpots = 'auto'\nn_spots = {N_SPOTS}\n", encoding="utf-8")
    results, chosen = [], []
    for ranks in (1, 2, 3):
        done = run(simulated, ranks)
        assert done.returncode == 0, done.stderr
        with HarvestFile(simulated.path) as harvest:
            chosen.append(harvest.settings["collectSpots"])
        results.append(datasets(simulated.path))
    assert len(chosen[0]) == N_SPOTS
    assert {tuple(node) for node in results[0]["blobs/hkl"].tolist()} == {tuple(node) for node in chosen[0]}
    for other, spots in zip(results[1:], chosen[1:], strict=True):
        assert spots == chosen[0]
        for name in ("points/counts", "points/Q", "blobs/hkl"):
            assert other[name].tobytes() == results[0][name].tobytes()
