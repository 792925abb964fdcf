"""The harvest equals brute force, point for point, and says what it did."""

import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.experiment.frames import FrameSeries
from tds2el.harvest.file import LOSSES
from tds2el.harvest.summary import harvest_table


def check(scan, harvest, **options):
    """Every blob's points, peaks and tallies, frame by frame; and no frame with points outside the blobs."""
    total = 0
    for blob in range(harvest.n_blobs):
        node = harvest.hkl[blob]
        np.testing.assert_allclose(harvest.centre[blob], np.linalg.inv(scan.a) @ node, atol=1e-12)
        span = range(harvest.first_frame[blob], harvest.last_frame[blob] + 1)
        found = [scan.brute(node, n, **options) for n in span]
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
    everywhere = [len(scan.brute(node, n, **options)[0]) for node in scan.hkl for n in range(len(scan.images))]
    assert total == sum(everywhere) == harvest.n_points.sum() > 900


@pytest.mark.parametrize("code", range(8))
def test_equals_brute_force(make_scan, code):
    scan = make_scan(orientation_codes=code, angular_step=0.4 if code % 2 else -0.4)
    with scan.run() as harvest:
        check(scan, harvest)
        assert harvest.n_peaks.sum() > 0
        assert harvest.lost["over_threshold"].sum() > 0
        assert harvest.lost["nearer_to_another_node"].sum() == 0


def test_threshold_action_pixel(make_scan):
    scan = make_scan(threshold_action="pixel")
    with scan.run() as harvest:
        check(scan, harvest, action="pixel")
        assert 0 < harvest.lost["over_threshold"].sum() < harvest.n_points.sum() / 20


@pytest.mark.parametrize("centring", ["P", "I"])
def test_points_nearer_to_another_node_are_dropped(make_scan, caplog, centring):
    scan = make_scan(centring=centring, DeltaQ_max=0.7)
    if centring == "I":
        scan.hkl = [node for node in scan.hkl if sum(node) % 2 == 0]
        assert scan.hkl
    with scan.run(f"collectSpots={scan.hkl}") as harvest:
        check(scan, harvest, centring=centring, dmax=0.7)
        assert harvest.lost["nearer_to_another_node"].sum() > 100
    assert "more than a quarter of the distance to the nearest allowed node" in caplog.text


def test_without_centring_the_nearest_node_is_named(scan, caplog):
    caplog.set_level("INFO", "tds2el")
    scan.run().close()
    assert "the nearest node of a P lattice is" in caplog.text
    assert "direct beam at row" in caplog.text


def test_absent_reflection(make_scan):
    scan = make_scan(centring="I", collectSpots=[(1, 1, 0), (1, 2, 0)])
    with pytest.raises(InputError, match=r"collectSpots: \(1, 2, 0\) absent for centring"):
        scan.run()


@pytest.mark.parametrize(
    ("spots", "message"),
    [("[(0, 0, 0)]", "the direct beam"), ("[(40, 0, 0)]", "no reflection of the list reaches the detector")],
)
def test_impossible_reflections(scan, spots, message):
    with pytest.raises(InputError, match=message):
        scan.run(f"collectSpots={spots}")


def test_reflection_out_of_the_scan_is_listed(scan, caplog):
    with scan.run(f"collectSpots={[*scan.hkl, (40, 0, 0)]}") as harvest:
        check(scan, harvest)
    assert "no point was harvested of (40, 0, 0)" in caplog.text


def test_no_point_at_all(scan):
    np.save(scan.folder / "mask.npy", np.zeros_like(scan.mask, dtype=np.uint8))
    with pytest.raises(InputError, match=r"mask|point"):
        scan.run()
    assert not scan.path.exists()


def test_threshold_is_needed(scan):
    with pytest.raises(InputError, match="threshold"):
        scan.run("threshold=None")


@pytest.mark.parametrize("threshold", [None, 100, 40])
def test_lowest_of_threshold_and_count_cutoff(scan, caplog, threshold):
    caplog.set_level("INFO", "tds2el")
    scan.images[scan.images == 500] = 60
    scan.images[scan.images == 16] = 45
    header = {"_array_data.header_contents": "# Detector: PILATUS\r\n# Count_cutoff 60 counts"}
    scan.write(header)
    with scan.run(f"threshold={threshold}") as harvest:
        # A pixel that reaches the cutoff is saturated; a threshold is to be exceeded.
        check(scan, harvest, threshold=40 if threshold == 40 else 59)
        assert harvest.n_peaks.sum() > 3
    assert ("the headers' count cutoff, 60, is the threshold" in caplog.text) == (threshold != 40)


def test_largest_value_of_an_unsigned_type_is_saturation(scan):
    from fabio.edfimage import EdfImage

    scan.images = np.where(scan.images == 500, 65535, np.maximum(scan.images, 0))
    for n, image in enumerate(scan.images):
        EdfImage(data=image.astype(np.uint16)).write(str(scan.frame(n).with_suffix(".edf")))
    rows = (scan.folder / "monitor.txt").read_text()
    (scan.folder / "monitor.txt").write_text(rows.replace(".cbf", ".edf"))
    with scan.run("images_postfix=.edf", "threshold=1e6") as harvest:
        check(scan, harvest, threshold=65534)
        assert set(np.concatenate([harvest.peaks(b)[0] for b in range(harvest.n_blobs)])) == {65535}


def test_counts_of_zero_are_data(scan):
    scan.images[:] = 0
    scan.write()
    with scan.run() as harvest:
        check(scan, harvest)


def test_frames_that_see_nothing_are_not_read(scan, monkeypatch):
    read, frames_read = FrameSeries.read, []
    monkeypatch.setattr(FrameSeries, "read", lambda self, n: frames_read.append(n) or read(self, n))
    with scan.run(f"collectSpots={scan.hkl[:1]}") as harvest:
        seen = set(harvest.pixels(0)[2]) | set(harvest.pixels(harvest.n_blobs - 1)[2])
    assert seen <= set(frames_read)
    assert len(frames_read) == len(set(frames_read)) < 35


def test_missing_folder_is_named_before_any_frame_is_read(scan):
    with pytest.raises(InputError, match=r"save_to_file = .*absent.*does not exist"):
        scan.run("save_to_file=absent/harvest.h5")


def test_table_lists_every_blob(scan):
    with scan.run() as harvest:
        lines = harvest_table(harvest).splitlines()
        first = lines[1].split()
        assert [int(x) for x in first[1:4]] == harvest.hkl[0].tolist()
        assert first[5:] == [
            f"{harvest.first_frame[0]}-{harvest.last_frame[0]}",
            str(harvest.n_points[0]),
            str(harvest.n_peaks[0]),
        ]
        assert len(lines) == harvest.n_blobs + 4
        assert f"{harvest.n_points.sum()} points" in lines[-2]
