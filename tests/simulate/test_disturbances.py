"""Second lattice, zingers, shadow, air and slits, wrong par-files: against brute force, moments and what is read."""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import fabio
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds2el.errors import InputError
from tds2el.experiment.mask import read_mask
from tds2el.parallel import World
from tds2el.settings import load_settings
from tds2el.simulate.disturbances import shadow_masks, transmission, zingers
from tds2el.simulate.expectation import VirtualScan
from tds2el.simulate.options import Scan, load_scan
from tds2el.simulate.scan import draw_background, draw_counts, good_pixels, simulate_scan
from tds2el.simulate.scan_kinds import SecondLattice, Shadow

SPOTS = ((1, 0, 4), (0, 1, 8))
ALL = """
second_lattice = [0.1, 0, 0, 20]
zingers = 3
shadow = [10, 5, 4, 1, 0.5, 0.2]
structured_background = 3
background_frames = 7
geometry_error = {"r1": 0.2, "AA": 0.005, "BB": 0.005, "det_origin_X": 1.5}
collectSpots = [[1, 0, 4], [0, 1, 8]]
"""


def silent(frames: Iterable[object], total: int) -> Iterable[object]:
    return frames


@pytest.fixture
def scan(scan_file: Path) -> Scan:
    # Named reflections: those of "auto", which settle the scale, depend on the orientation.
    return replace(load_scan(scan_file), collectSpots=SPOTS)


@pytest.fixture
def disturbed(scan_file: Path) -> VirtualScan:
    scan_file.write_text(scan_file.read_text(encoding="utf-8") + ALL, encoding="utf-8")
    return VirtualScan(load_scan(scan_file))


def turned(scan: Scan, r1: float, r2: float, r3: float) -> Scan:
    return replace(scan, experiment=replace(scan.experiment, r1=r1, r2=r2, r3=r3))


def test_second_lattice_is_a_fraction_of_a_turned_crystal(scan: Scan) -> None:
    scan = replace(scan, peak_width=0.008)  # so wide that the coarse pixels hit peaks in every frame
    turn = (2.0, -31.0, 47.0)
    # The conventions' matrices are passive: the angles of active ones have the opposite sign.
    first, second = (Rotation.from_euler("xyz", [-a for a in angles], degrees=True) for angles in ((20, 35, 10), turn))
    r1, r2, r3 = -(second * first).as_euler("xyz", degrees=True)
    both = VirtualScan(replace(scan, second_lattice=SecondLattice(0.3, *turn)))
    alone, other = VirtualScan(scan), VirtualScan(turned(scan, float(r1), float(r2), float(r3)))
    foreign_peaks = 0
    for frame in (5, 6, 13):
        expected = alone.intensity(frame) + 0.3 * other.intensity(frame)
        np.testing.assert_allclose(both.intensity(frame), expected, rtol=1e-3)
        foreign_peaks += int(np.count_nonzero(0.3 * other.intensity(frame) > 1e4))
        assert not np.allclose(alone.intensity(frame), other.intensity(frame), rtol=0.1)
    assert foreign_peaks > 0


def test_a_turn_about_axis_3_adds_to_r3(scan: Scan) -> None:
    both = VirtualScan(replace(scan, second_lattice=SecondLattice(1.0, 0.0, 0.0, 25.0)))
    expected = VirtualScan(scan).intensity(9) + VirtualScan(turned(scan, 20, 35, 35)).intensity(9)
    np.testing.assert_allclose(both.intensity(9), expected, rtol=1e-3)


def test_zingers_have_the_moments_of_their_law() -> None:
    shape, mean, frames = (200, 300), 5.0, 400
    hit, counts = [], []
    for frame in range(frames):
        added = zingers(mean, shape, np.random.default_rng(frame))
        hit.append(np.count_nonzero(added))
        counts.append(added[added > 0])
    # Tracks of 1, 2 or 3 pixels: 2 on average and 14/3 in the square, a few cut at the edge.
    assert np.mean(hit) == pytest.approx(2 * mean, abs=4 * np.sqrt(mean * 14 / 3 / frames) + 0.1)
    assert np.var(hit) == pytest.approx(mean * 14 / 3, rel=0.3)
    logarithm = np.log(np.concatenate(counts))
    low, high = np.log(20), np.log(1e4)
    assert logarithm.min() >= low - 1e-9
    assert logarithm.max() <= np.log(2e4)
    assert logarithm.mean() == pytest.approx((low + high) / 2, abs=0.15)
    assert logarithm.std() == pytest.approx((high - low) / np.sqrt(12), rel=0.05)


def test_zingers_are_connected_tracks() -> None:
    from scipy.ndimage import label

    sizes = []
    for seed in range(300):
        clusters, number = label(zingers(0.05, (500, 500), np.random.default_rng(seed)), np.ones((3, 3)))
        sizes += [int(np.count_nonzero(clusters == n + 1)) for n in range(number)]
    assert set(sizes) == {1, 2, 3}


def test_zingers_add_to_the_same_counts(scan: Scan) -> None:
    plain, hit = draw_counts(VirtualScan(scan), 3), draw_counts(VirtualScan(replace(scan, zingers=4.0)), 3)
    added = hit - plain
    assert 1 <= np.count_nonzero(added) <= 30
    assert added[added != 0].min() >= 20
    np.testing.assert_array_equal(hit == -1, plain == -1)
    again = draw_counts(VirtualScan(replace(scan, zingers=4.0, noise_seed=8)), 3) - draw_counts(
        VirtualScan(replace(scan, noise_seed=8)), 3
    )
    assert np.any(again != added)


def test_shadow_moves_with_the_frames(scan: Scan) -> None:
    shadow = Shadow(10.0, 40.0, 6.5, 1.0, -0.5, 0.25)
    dark = VirtualScan(replace(scan, shadow=shadow))
    for frame in (0, 12, 39):
        ratio = dark.expected(frame) / VirtualScan(scan).expected(frame)
        row, column = np.nonzero(ratio < 0.9)
        np.testing.assert_allclose(ratio[row, column], 0.25, rtol=1e-12)
        brute = np.array(
            [[(i - 10 - frame) ** 2 + (j - 40 + frame / 2) ** 2 <= 6.5**2 for j in range(47)] for i in range(61)]
        )
        np.testing.assert_array_equal(ratio < 0.9, brute)


@pytest.mark.parametrize("n_frames", [3, 40])
def test_masks_cover_the_shadow_of_every_frame(n_frames: int) -> None:
    shadow = Shadow(-5.0, 20.0, 6.0, 2.5, 0.3, 0.0)
    masks = shadow_masks(shadow, (61, 47), n_frames)
    covered = [frame for first, last, _ in masks for frame in range(first, last + 1)]
    assert covered == list(range(n_frames))
    assert len(masks) == min(n_frames, 8)
    row, column = np.mgrid[:61, :47]
    for first, last, good in masks:
        distance = np.min([np.hypot(row + 5 - 2.5 * n, column - 20 - 0.3 * n) for n in range(first, last + 1)], axis=0)
        np.testing.assert_array_equal(good, distance > 8)


def test_a_shadow_may_be_off_the_detector() -> None:
    away = Shadow(-500.0, 900.0, 6.0, 0.0, 0.0, 0.0)
    np.testing.assert_array_equal(transmission(away, (61, 47), 3), np.ones((61, 47)))
    assert all(good.all() for _, _, good in shadow_masks(away, (61, 47), 3))


def test_air_and_slits_add_counts_that_the_crystal_does_not_change(scan: Scan) -> None:
    foggy = replace(scan, structured_background=4.0)
    other = replace(foggy, experiment=replace(foggy.experiment, pol_degree=0.3, r1=50.0), seed=99)
    for frame in (0, 30):
        added = VirtualScan(foggy).expected(frame) - VirtualScan(scan).expected(frame)
        assert added.mean() == pytest.approx(4 * VirtualScan(scan).monitor(frame), rel=1e-6)
        np.testing.assert_allclose(VirtualScan(other).expected_background(frame), added, rtol=1e-5, atol=1e-6)
    virtual = VirtualScan(foggy)
    pattern = virtual.structured_background
    assert pattern.min() > 0
    beam_row, beam_column = virtual.geometry.direct_beam()
    row, column = np.unravel_index(pattern.argmax(), pattern.shape)
    assert np.hypot(row - beam_row, column - beam_column) < 2
    # Brighter than air alone on a streak: not the same all round the beam.
    distance = np.hypot(*(np.mgrid[:61, :47] - np.array([beam_row, beam_column])[:, None, None]))
    ring = pattern[np.abs(distance - 12) < 1]
    assert ring.max() > 1.5 * np.median(ring)


def test_background_frames_count_the_pattern_alone(scan: Scan) -> None:
    virtual = VirtualScan(replace(scan, structured_background=4.0, background_frames=50))
    frames = np.array([draw_background(virtual, n) for n in range(50)])
    assert (frames[:, 20:23] == -1).all()
    good = good_pixels(virtual)
    expected = sum(virtual.monitor(n) for n in range(50)) * virtual.structured_background
    pull = (frames.sum(axis=0) - expected)[good] / np.sqrt(expected[good])
    assert abs(pull.mean()) < 4 / np.sqrt(pull.size)
    assert np.mean(pull**2) == pytest.approx(1, abs=0.15)
    assert np.any(frames[0] != draw_counts(virtual, 0))


def test_everything_is_written(disturbed: VirtualScan) -> None:
    simulate_scan(disturbed, World(), silent)
    folder, scan = disturbed.scan.output_folder, disturbed.scan
    assert [path.name for path in sorted((folder / "background").iterdir())] == [
        f"empty_{n:05d}.cbf" for n in range(1, 8)
    ]
    stored = fabio.open(str(folder / "background" / "empty_00003.cbf")).data
    np.testing.assert_array_equal(stored, draw_background(disturbed, 2))
    stored = fabio.open(str(folder / "frames" / "scan_00021.cbf")).data
    np.testing.assert_array_equal(stored, draw_counts(VirtualScan(scan), 20))
    rows = [line.split() for line in (folder / "background_monitor.txt").read_text(encoding="utf-8").splitlines()]
    assert [name for name, _ in rows] == [f"background/empty_{n:05d}.cbf" for n in range(1, 8)]
    assert [float(value) for _, value in rows] == [disturbed.monitor(n) for n in range(7)]
    truth = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    assert truth["second_lattice"] == {"fraction": 0.1, "r1": 0, "r2": 0, "r3": 20}
    assert (truth["zingers"], truth["structured_background"], truth["background_frames"]) == (3, 3, 7)
    assert truth["shadow"]["drow"] == 1
    assert truth["geometry_error"] == {"r1": 0.2, "AA": 0.005, "BB": 0.005, "det_origin_X": 1.5}
    assert truth["true_geometry"]["r1"] == 20
    assert truth["true_geometry"]["AA"] == 4.99
    settings = load_settings(folder / "input.par")
    assert settings.experiment.r1 == pytest.approx(20.2)
    assert settings.experiment.det_origin_X == pytest.approx(31.5)
    assert settings.crystal.cell is not None
    np.testing.assert_allclose(settings.crystal.cell[:3], (4.995, 4.995, 17.061))
    true = replace(settings.experiment, r1=20.0, det_origin_X=30.0)
    assert true == scan.experiment


def test_commented_lines_can_be_switched_on(disturbed: VirtualScan) -> None:
    simulate_scan(disturbed, World(), silent)
    folder = disturbed.scan.output_folder
    before = load_settings(folder / "input.par")
    assert before.frames is not None
    assert (before.frames.filter_ranges, before.frames.background_prefix) == (None, None)
    text = (folder / "input.par").read_text(encoding="utf-8")
    (folder / "on.par").write_text(text.replace("# ", ""), encoding="utf-8")
    frames = load_settings(folder / "on.par").frames
    assert frames is not None
    assert frames.filter_ranges is not None
    assert [(first, last) for first, last, _ in frames.filter_ranges] == [(5 * n, 5 * n + 4) for n in range(8)]
    first, _, mask = frames.filter_ranges[1]
    assert not read_mask(mask, (61, 47))[10 + first, round(5 + 0.5 * first)]
    assert read_mask(mask, (61, 47)).sum() > 2000
    assert frames.background_prefix == str(folder / "background" / "empty_")
    assert frames.background_postfix == ".cbf"
    assert frames.background_normalisation_file == folder / "background_monitor.txt"


def test_shares_of_ranks_make_up_the_same_scan(disturbed: VirtualScan, tmp_path: Path) -> None:
    simulate_scan(disturbed, World(), silent)

    class Alone(World):
        """A rank that waits for no other."""

        def attempt(self, work):  # type: ignore[no-untyped-def]
            return work()

    shared = replace(disturbed.scan, output_folder=tmp_path / "shared")
    for rank in (2, 0, 1):
        simulate_scan(VirtualScan(shared), Alone(rank=rank, size=3), silent)
    one = disturbed.scan.output_folder
    names = [str(path.relative_to(one)) for path in sorted(one.rglob("*")) if path.is_file()]
    assert len(names) == 46 + 7 + 1 + 8
    assert filecmp.cmpfiles(one, shared.output_folder, names, shallow=False)[0] == names


def test_frames_without_the_crystal_of_another_scan_are_not_mixed_in(disturbed: VirtualScan) -> None:
    simulate_scan(disturbed, World(), silent)
    with pytest.raises(InputError, match=r"background holds empty_00007.cbf of another scan"):
        simulate_scan(VirtualScan(replace(disturbed.scan, background_frames=6)), World(), silent)


def test_a_cell_that_loses_its_symmetry_is_refused_before_the_first_frame(scan: Scan) -> None:
    with pytest.raises(InputError, match=r"geometry_error: "):
        simulate_scan(VirtualScan(replace(scan, geometry_error={"AA": 0.5})), World(), silent)
    assert not scan.output_folder.exists()


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ("second_lattice = [0.1, 2]", r"second_lattice = .*must be \[fraction, r1, r2, r3\]"),
        ("second_lattice = [1.5, 1, 2, 3]", r"the fraction must be a number from 0 to 1"),
        ("zingers = -1", r"zingers = -1: must be a number not below 0"),
        ("shadow = [1, 2, 3]", r"shadow = .*must be \[row, column, radius, drow, dcolumn, transmission\]"),
        ("shadow = [1, 2, 0, 0, 0, 0.5]", r"the radius must be"),
        ("shadow = [1, 2, 3, 0, 0, 2]", r"the transmission must be"),
        ("background_frames = 5", r"background_frames would be empty; give structured_background too"),
        ('geometry_error = {"det_orign_X": 1}', r"'det_orign_X' is no number .*; did you mean 'det_origin_X'\?"),
        ('geometry_error = {"orientation_codes": 1}', r"'orientation_codes' is no number"),
        ('geometry_error = {"xyzzy": 1}', r"possible are pixel_size, dist"),
        ('geometry_error = {"normal_to_pol": 1}', r"'normal_to_pol' is no number"),
        ('geometry_error = {"r1": "x"}', r'must be \{"r1": number'),
        ('geometry_error = {"dist": -200}', r"geometry_error: dist = -100.0: must be a positive number"),
    ],
)
def test_mistakes_are_named(scan_file: Path, added: str, message: str) -> None:
    scan_file.write_text(scan_file.read_text(encoding="utf-8") + added + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=message):
        load_scan(scan_file)
