"""Figures of spots, against brute force over their points and halos of known shape; and the table that lists them."""

from types import SimpleNamespace

import numpy as np
import pytest

from tds2el.harvest import quality
from tds2el.harvest.centre import peak_offsets
from tds2el.harvest.quality import spot_quality
from tds2el.harvest.summary import harvest_table


def cell_of(q):
    """Bands between z/|q| = -1, -2/3, …, 1, each of eight sectors: 48 cells of equal area."""
    band = np.searchsorted(np.linspace(-1, 1, 7)[1:-1], q[2] / np.linalg.norm(q), side="right")
    return int(band), int(np.rad2deg(np.arctan2(q[1], q[0])) % 360 // 45)


@pytest.mark.parametrize(("piece", "ranks"), [(1 << 20, 1), (100, 1), (7, 1), (100, 3)])
def test_against_brute_force(scan, monkeypatch, piece, ranks):
    monkeypatch.setattr(quality, "PIECE", piece)
    with scan.run() as harvest:
        parts = [quality.quality_sums(harvest, rank, ranks) for rank in range(ranks)]
        assert ranks == 1 or all(hit.any() and not hit.all() for hit, _ in parts)
        found = spot_quality(harvest, None if ranks == 1 else SimpleNamespace(ask=lambda task: parts))
        middle = np.sqrt(harvest.delta_min * harvest.delta_max)
        for blob in range(harvest.n_blobs):
            counts, kappa, Q = harvest.points(blob)
            q = Q - harvest.centre[blob]
            assert found.points[blob] == len(counts)
            assert found.coverage[blob] == pytest.approx(len({cell_of(v) for v in q}) / 48)
            if len(counts) < 3:
                continue
            design = np.column_stack([1 / np.sum(q**2, axis=1), np.ones(len(q))])
            a, b = np.linalg.lstsq(design, counts / kappa.astype(float), rcond=None)[0]
            assert found.signal[blob] == pytest.approx(a / middle**2 / b, rel=1e-6)
        np.testing.assert_allclose(found.lost_frames, harvest.frames_over_threshold / harvest.frames)
        assert 0 < found.lost_frames.max() <= 1
        np.testing.assert_array_equal(found.offset, peak_offsets(harvest))


def draw_halos(scan, signal, background=None):
    """Noise-free a/q² + b, with the given ratio at the geometric mean of the radii, times κ."""
    rows, columns = np.indices(scan.mask.shape)
    kappa = scan.geometry.polarisation(rows, columns) * scan.geometry.solid_angle(rows, columns)
    middle2 = 0.12 * 0.5 * scan.unit**2
    for n in range(len(scan.images)):
        q = scan.geometry.q_crystal(rows, columns, scan.geometry.phi(n))
        q2 = np.min([np.sum((q - np.linalg.inv(scan.a) @ node) ** 2, axis=-1) for node in scan.hkl], axis=0)
        image = 1e6 * kappa * scan.denominator[n] * (1 + signal * middle2 / np.maximum(q2, 1e-6))
        scan.images[n] = np.rint(image + (0 if background is None else scan.denominator[n] * background))
    scan.write()


@pytest.mark.parametrize("signal", [0.0, 0.3, 5.0])
def test_signal_of_a_known_halo(scan, signal):
    draw_halos(scan, signal)
    with scan.run("threshold=2e9") as harvest:
        np.testing.assert_allclose(spot_quality(harvest).signal[harvest.n_points > 50], signal, rtol=1e-3, atol=1e-4)


def test_the_background_is_taken_off(scan, monkeypatch):
    from fabio.cbfimage import CbfImage

    monkeypatch.chdir(scan.folder)
    background = np.random.default_rng(4).integers(1_000_000, 5_000_000, scan.mask.shape).astype(np.int32)
    CbfImage(data=background).write("empty_1.cbf")
    (scan.folder / "empty.txt").write_text("empty_1.cbf 1\n")
    draw_halos(scan, 2.0, background)
    options = ("background_prefix=empty_", "background_normalisation_file=empty.txt", "threshold=2e9")
    with scan.run(*options) as harvest:
        np.testing.assert_allclose(spot_quality(harvest).signal[harvest.n_points > 50], 2.0, rtol=1e-3)


def test_no_counts_at_all(scan):
    scan.images[:] = 0
    scan.write()
    with scan.run() as harvest:
        found = spot_quality(harvest)
        assert set(found.signal[harvest.n_points > 50]) == {0.0}
        assert np.isnan(found.offset).all()
        assert np.isnan(found.offset_pixels).all()
        assert not found.lost_frames.any()


def test_a_whole_ball_has_a_signal_too(scan):
    with scan.run("DeltaQ_min=0") as harvest:
        assert np.isfinite(spot_quality(harvest).signal[harvest.n_points > 50]).all()


def test_lost_pixels_cost_no_frame(scan):
    with scan.run("threshold_action=pixel") as harvest:
        assert harvest.frames_over_threshold.any()
        assert not spot_quality(harvest).lost_frames.any()


def test_offsets_on_the_detector(scan, monkeypatch):
    """The pixel whose ray passes nearest to G + offset, found by search over the detector."""
    monkeypatch.chdir(scan.folder)
    scan.run("save_to_file=first.h5").close()
    with scan.run("centering_file=first.h5", "save_to_file=second.h5") as harvest:
        found = spot_quality(harvest)
        peaked = np.flatnonzero(harvest.n_peaks)
        np.testing.assert_array_equal(found.offset[peaked], (harvest.shift + peak_offsets(harvest))[peaked])
        grid = np.arange(-80, 140, 0.1)
        rows, columns = np.meshgrid(grid, grid, indexing="ij")
        rays = scan.geometry.q_lab(rows, columns) * 0.7 - scan.geometry.beam
        checked = 0
        for blob in peaked[:3]:
            turn = scan.geometry.lab_to_crystal(harvest.angle[blob])
            places = []
            for node in (harvest.centre[blob], harvest.centre[blob] + found.offset[blob]):
                ray = 0.7 * turn.T @ node - scan.geometry.beam
                best = np.unravel_index(np.argmax(rays @ (ray / np.linalg.norm(ray))), rows.shape)
                places.append((rows[best], columns[best]))
            assert found.offset_pixels[blob] == pytest.approx(np.hypot(*np.subtract(*places)), abs=0.2)
            checked += found.offset_pixels[blob] > 1
        assert checked


def test_the_table_lists_every_blob(scan):
    with scan.run() as harvest:
        found = spot_quality(harvest)
        lines = harvest_table(harvest, spot_quality(harvest)).splitlines()
        assert len(lines) == harvest.n_blobs + 4
        assert f"{harvest.n_points.sum()} points" in lines[-2]
        for blob, line in enumerate(lines[1 : 1 + harvest.n_blobs]):
            words = line.split()
            assert words[:4] == [str(blob), *map(str, harvest.hkl[blob])]
            assert words[5:8] == [
                f"{harvest.first_frame[blob]}-{harvest.last_frame[blob]}",
                str(harvest.n_points[blob]),
                str(harvest.n_peaks[blob]),
            ]
            offset = np.linalg.norm(found.offset[blob])
            seen = harvest.n_peaks[blob] > 0
            assert words[8:] == [
                f"{found.coverage[blob]:.2f}",
                "-" if np.isnan(found.signal[blob]) else f"{found.signal[blob]:.2f}",
                f"{found.lost_frames[blob]:.2f}",
                f"{offset:.5f}" if seen else "-",
                f"{found.offset_pixels[blob]:.2f}" if seen else "-",
            ]
            assert len(line) == len(lines[0])
