"""The harvest equals brute force, point for point, and says what it did."""

import numpy as np
import pytest
from fabio.cbfimage import CbfImage

from tds2el.errors import InputError
from tds2el.experiment.maxima import Maxima, write_maxima


@pytest.mark.parametrize("code", range(8))
def test_equals_brute_force(make_scan, code):
    scan = make_scan(orientation_codes=code, angular_step=0.4 if code % 2 else -0.4)
    with scan.run() as harvest:
        scan.check(harvest)
        assert harvest.n_peaks.sum() > 0
        assert harvest.lost["over_threshold"].sum() > 0
        assert harvest.lost["nearer_to_another_node"].sum() == 0


def test_equals_brute_force_with_parallax(make_scan):
    scan = make_scan(sensor_thickness=4.0, sensor_mu=0.3)
    with scan.run() as harvest, make_scan().run(f"save_to_file={scan.folder / 'thin.h5'}") as thin:
        scan.check(harvest)
        assert harvest.n_points.tolist() != thin.n_points.tolist()


def test_threshold_action_pixel(make_scan):
    scan = make_scan(threshold_action="pixel")
    with scan.run() as harvest:
        scan.check(harvest, action="pixel")
        assert 0 < harvest.lost["over_threshold"].sum() < harvest.n_points.sum() / 20


@pytest.mark.parametrize("centring", ["P", "I"])
def test_points_nearer_to_another_node_are_dropped(make_scan, caplog, centring):
    scan = make_scan(centring=centring, DeltaQ_max=0.7)
    if centring == "I":
        scan.hkl = [node for node in scan.hkl if sum(node) % 2 == 0]
        assert scan.hkl
    with scan.run(f"collectSpots={scan.hkl}") as harvest:
        scan.check(harvest, centring=centring, dmax=0.7)
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
        scan.check(harvest)
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
        scan.check(harvest, threshold=40 if threshold == 40 else 59)
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
        scan.check(harvest, threshold=65534)
        assert set(np.concatenate([harvest.peaks(b)[0] for b in range(harvest.n_blobs)])) == {65535}


def test_counts_of_zero_are_data(scan):
    scan.images[:] = 0
    scan.write()
    with scan.run() as harvest:
        scan.check(harvest)


def test_frames_that_see_nothing_are_not_read(scan):
    """Damage to their images goes unnoticed, while any other is told. Frame 0 gives shape and type of the series."""
    overrides = (f"collectSpots={scan.hkl[:1]}", "save_to_file=" + str(scan.path))
    with scan.run(*overrides) as harvest:
        looked_at = {
            n for b in range(harvest.n_blobs) for n in range(harvest.first_frame[b], harvest.last_frame[b] + 1)
        }
        before = harvest.points_of_all(0, int(harvest.offset[-1]))
    assert 3 < len(looked_at) < 35
    for n in set(range(1, len(scan.images))) - looked_at:
        damage_image(scan.frame(n))
    with scan.run(*overrides) as harvest:
        for one, other in zip(before, harvest.points_of_all(0, int(harvest.offset[-1])), strict=True):
            np.testing.assert_array_equal(one, other)
    victim = scan.frame(sorted(looked_at)[1])
    damage_image(victim)
    with pytest.raises(
        InputError, match=rf"{victim.name}: damaged: its image ends after \d+ of {46 * 61} pixels; copy"
    ):
        scan.run(*overrides)


def damage_image(path):
    """Keep the header and length of a CBF, but make a long difference of every fifth byte."""
    data = bytearray(path.read_bytes())
    start = data.index(b"\x0c\x1a\x04\xd5") + 4
    size = int(data.split(b"X-Binary-Size: ")[1].split()[0])
    data[start : start + size : 5] = b"\x80" * len(range(0, size, 5))
    path.write_bytes(data)


def test_missing_folder_is_named_before_any_frame_is_read(scan):
    with pytest.raises(InputError, match=r"save_to_file = .*absent.*does not exist"):
        scan.run("save_to_file=absent/harvest.h5")


# Replicas and tagged peaks


def images(scan, hkl):
    """What inversion adds to a list, in ascending order."""
    return sorted({tuple(-i for i in node) for node in hkl} - set(hkl))


def test_replicas_follow_the_listed(make_scan, caplog):
    caplog.set_level("INFO", "tds2el")
    scan = make_scan(ascii_generators="1~")
    # The scan sees these nodes, and not their Friedel mates.
    listed = [*scan.hkl[:3], *(tuple(-i for i in node) for node in scan.hkl[3:]), (40, 1, 0)]
    with scan.run(f"collectSpots={listed}", "REPLICA_COLLECTION=1") as harvest:
        replicas = images(scan, listed)
        order = [tuple(node) for node in harvest.hkl.tolist()]
        assert order == [node for node in [*listed, *replicas] if node in order]
        assert set(order) & set(replicas)
        seen = {tuple(node) for node in harvest.hkl[harvest.n_points > 0].tolist()}
        scan.hkl = listed + replicas
        scan.check(harvest, fewest=500)
        assert harvest.settings["collectSpots"] == [list(node) for node in listed]
    warned, told = ([r.getMessage() for r in caplog.records if r.levelname == level] for level in ("WARNING", "INFO"))
    warning = next(text for text in warned if "no point was harvested" in text)
    note = next(text for text in told if "no point was harvested" in text)
    for text, nodes in ((warning, listed), (note, replicas)):
        for node in nodes:
            assert (str(node) in text) == (node not in seen), (text, node)
    assert f"{len(listed)} reflections and {len(replicas)} equivalent ones" in caplog.text


def test_replicas_of_replicas_are_taken_once(scan):
    both = [*scan.hkl, *(tuple(-i for i in node) for node in scan.hkl)]
    with scan.run(f"collectSpots={both}") as harvest:
        listed = harvest.hkl.tolist()
    with scan.run(f"collectSpots={both}", "REPLICA_COLLECTION=1") as harvest:
        assert harvest.hkl.tolist() == listed


def test_replicas_need_a_symmetry_that_the_lattice_has(scan):
    with pytest.raises(InputError, match=r"ascii_generators|AA = 6\.1"):
        scan.run("REPLICA_COLLECTION=1", "ascii_generators=4(z)")


def test_tagged_peaks_instead_of_a_list(make_scan):
    scan = make_scan()
    hkl = np.array([*scan.hkl, *scan.hkl, (0, 0, 0)])
    accepted = np.arange(len(hkl)) != len(scan.hkl)  # the second peak of the first reflection is refused
    place = np.zeros(len(hkl))
    write_maxima(scan.folder / "maxima.h5", Maxima(place, place, place, place, hkl, accepted))
    conf = scan.folder / "conf.par"
    lines = [line for line in conf.read_text().splitlines() if not line.startswith("collectSpots")]
    conf.write_text("\n".join([*lines, "file_maxima = 'maxima.h5'", ""]))
    with scan.run() as harvest:
        scan.hkl = scan.hkl[1:]
        scan.check(harvest, fewest=500)
        assert {tuple(node) for node in harvest.hkl.tolist()} <= set(scan.hkl)
    hkl[0] = 0, 0, 1
    write_maxima(scan.folder / "maxima.h5", Maxima(place, place, place, place, hkl * 2 - 1, accepted))
    with pytest.raises(InputError, match=r"file_maxima: \(.*\) absent for centring = 'I'"):
        scan.run("centring=I")


# Masks for ranges of frames, and the background


def write_ranges(scan):
    rng = np.random.default_rng(8)
    shadow, spot = (rng.random(scan.mask.shape) > part for part in (0.5, 0.2))
    np.save(scan.folder / "shadow.npy", shadow.astype(np.uint8))
    np.save(scan.folder / "spot.npy", spot.astype(np.uint8))
    scan.ranges = [(5, 12, shadow), (10, 20, spot), (30, 30, shadow), (39, 39, spot)]
    names = {id(shadow): "shadow.npy", id(spot): "spot.npy"}
    return [[first, last, str(scan.folder / names[id(mask)])] for first, last, mask in scan.ranges]


def test_masks_for_ranges_of_frames(scan):
    with scan.run(f"filter_ranges={write_ranges(scan)}") as harvest:
        scan.check(harvest)


def test_masks_for_ranges_follow_the_order_of_the_scan(scan):
    """With the angle from the number, frame 0 is the first of the scan, whatever its name sorts as."""
    for n in range(40):
        scan.frame(n).rename(scan.folder / f"frame_{n + 90}.cbf")  # 90 to 129: sorted, 100 comes first
    monitor = scan.folder / "monitor.txt"
    monitor.write_text("".join(f"frame_{n + 90}.cbf {d!r}\n" for n, d in enumerate(scan.denominator.tolist())))
    with scan.run("frame_angle=number", f"filter_ranges={write_ranges(scan)}") as harvest:
        scan.check(harvest)


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        ("[[0, 3, 'mask.npy'], [38, 40, 'mask.npy']]", "filter_ranges, entry 2: frames 38 to 40, but the scan has 40"),
        ("[[0, 3, 'absent.npy']]", r"filter_ranges .*absent\.npy: no such file"),
        ("[[0, 3, 'small.npy']]", r"filter_ranges .*small\.npy: shape \(3, 4\)"),
    ],
)
def test_wrong_masks_for_ranges(scan, monkeypatch, ranges, message):
    monkeypatch.chdir(scan.folder)
    np.save(scan.folder / "small.npy", np.ones((3, 4)))
    with pytest.raises(InputError, match=message):
        scan.run(f"filter_ranges={ranges}")


def write_background(scan, n_frames=3):
    """Frames without the crystal, of other numbers than the scan's; their counts, denominators and good pixels."""
    rng = np.random.default_rng(6)
    counts = rng.poisson(5.0, (n_frames, *scan.mask.shape)).astype(np.int32)
    counts[rng.random(counts.shape) < 0.01] = -1
    denominator = rng.uniform(3, 4, n_frames)
    for n, image in enumerate(counts):
        CbfImage(data=image).write(str(scan.folder / f"empty_{7 * n}.cbf"))
    rows = [f"empty_{7 * n}.cbf {d!r}\n" for n, d in enumerate(denominator.tolist())]
    (scan.folder / "empty.txt").write_text("".join(rows))
    return counts, denominator, (counts >= 0).all(axis=0)


BACKGROUND = ("background_prefix=empty_", "background_postfix=.cbf")


@pytest.mark.parametrize("monitor", [True, False])
def test_background(scan, monkeypatch, monitor):
    monkeypatch.chdir(scan.folder)
    counts, denominator, good = write_background(scan)
    options = ["background_normalisation_file=empty.txt"]
    if not monitor:
        options = ["normalisation_file=None"]
        denominator[:], scan.denominator[:] = 1, 1
    with scan.run(*BACKGROUND, *options, "background_exposures=20") as harvest:
        scan.mask &= good
        scan.check(harvest)
        assert harvest.has_background
        assert harvest.background_exposure == pytest.approx(20 * denominator.sum())
        for blob in range(harvest.n_blobs):
            row, column, frame = harvest.pixels(blob)
            expected = scan.denominator[frame] * counts.sum(axis=0)[row, column] / denominator.sum()
            background = harvest.background(blob)
            assert background.dtype == np.float32
            np.testing.assert_allclose(background, expected, rtol=1e-6)
            np.testing.assert_array_equal(harvest.background(blob, 7, 20), background[7:20])


def test_without_background(scan):
    with scan.run() as harvest:
        assert not harvest.has_background
        assert harvest.background(0) is None
        assert harvest.background_exposure is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((), "background_normalisation_file: needed with background_prefix, because normalisation_file is given"),
        (
            ("normalisation_file=None", "background_normalisation_file=empty.txt"),
            "normalisation_file: needed with background_prefix, because background_normalisation_file is given",
        ),
        (
            ("background_prefix=nothing_", "background_normalisation_file=empty.txt"),
            "check background_prefix and background_postfix",
        ),
        (("background_normalisation_file=monitor.txt",), r"monitor\.txt: no row for frame .*empty_0\.cbf"),
        (("background_normalisation_file=absent.txt",), r"background_normalisation_file .*absent\.txt"),
    ],
)
def test_wrong_background(scan, monkeypatch, overrides, message):
    monkeypatch.chdir(scan.folder)
    write_background(scan)
    with pytest.raises(InputError, match=message):
        scan.run(*BACKGROUND, *overrides)


def test_background_of_another_shape(scan, monkeypatch):
    monkeypatch.chdir(scan.folder)
    write_background(scan)
    good = ("background_normalisation_file=empty.txt",)
    CbfImage(data=np.zeros((20, 20), dtype=np.int32)).write("empty_14.cbf")
    with pytest.raises(
        InputError, match=r"empty_14\.cbf: shape 20×20, .* remove the frame or correct background_prefix"
    ):
        scan.run(*BACKGROUND, *good)
    CbfImage(data=np.zeros((20, 20), dtype=np.int32)).write("empty_0.cbf")
    with pytest.raises(InputError, match=r"empty_0\.cbf: shape 20×20, but that of the scan's frames is 46×61"):
        scan.run(*BACKGROUND, *good)
