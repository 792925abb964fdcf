"""Harvests round measured centres: what they are, that balls follow them, and that only the same scan may give them."""

import h5py
import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.harvest.centre import peak_offsets
from tds2el.harvest.file import HarvestFile

DELTA = (0.012, -0.009, 0.007)


@pytest.fixture
def centred(scan, monkeypatch):
    """A scan whose first harvest is first.h5, in the current folder."""
    monkeypatch.chdir(scan.folder)
    scan.run("save_to_file=first.h5").close()
    return scan


def second(*overrides):
    return ("centering_file=first.h5", "save_to_file=second.h5", *overrides)


def draw_peaks(scan, width=0.02):
    """Only round, sharp peaks on a weak background, all shifted by DELTA from their nodes."""
    rows, columns = np.indices(scan.mask.shape)
    scan.mask[:] = True
    centres = [np.linalg.inv(scan.a) @ node + DELTA for node in scan.hkl]
    for n in range(len(scan.images)):
        q = scan.geometry.q_crystal(rows, columns, scan.geometry.phi(n))
        distance2 = np.min([np.sum((q - g) ** 2, axis=-1) for g in centres], axis=0)
        scan.images[n] = np.rint(3 + 1e4 * np.exp(-distance2 / (2 * width**2)))
    scan.write()


def test_the_core_is_what_exceeds_half_or_is_saturated(centred):
    with HarvestFile("first.h5") as harvest:
        offsets = peak_offsets(harvest)
        assert 0 < np.isnan(offsets).any(axis=1).sum() < harvest.n_blobs
        for blob in range(harvest.n_blobs):
            peaks = [centred.brute(harvest.hkl[blob], n)[1] for n in range(40)]
            peaks = np.concatenate(peaks)
            if not len(peaks):
                assert np.isnan(offsets[blob]).all()
                continue
            core = peaks[peaks[:, 2] > peaks[:, 2].max() / 2]
            expected = (
                np.average(core[:, 4:], axis=0, weights=core[:, 2]) - np.linalg.inv(centred.a) @ harvest.hkl[blob]
            )
            np.testing.assert_allclose(offsets[blob], expected, atol=1e-12)


def test_saturated_pixels_belong_to_the_core(centred):
    with h5py.File("first.h5", "a") as file:
        peaks = file["entry/peaks/counts"][()]
        first = int(np.argmax(np.diff(file["entry/blobs/peak_offset"]) > 1))
        part = slice(*file["entry/blobs/peak_offset"][first : first + 2])
        peaks[part] = 101
        peaks[part.start] = 1000
        file["entry/peaks/counts"][...] = peaks
        q, centre = file["entry/peaks/Q"][part], file["entry/blobs/centre"][first]
    with HarvestFile("first.h5") as harvest:
        np.testing.assert_allclose(peak_offsets(harvest)[first], q[0] - centre, atol=1e-12)
    with h5py.File("first.h5", "a") as file:
        file["entry/shell/saturation"][...] = 101.0
    with HarvestFile("first.h5") as harvest:
        expected = np.average(q, axis=0, weights=peaks[part]) - centre
        np.testing.assert_allclose(peak_offsets(harvest)[first], expected, atol=1e-12)


@pytest.mark.parametrize("action", ["frame", "pixel"])
@pytest.mark.parametrize("centring", [None, "P"])
def test_shells_follow_the_centres(centred, action, centring, caplog):
    """Stray hot pixels, anywhere in the ball, make for shifts far beyond any real one."""
    with HarvestFile("first.h5") as harvest:
        expected = np.nan_to_num(peak_offsets(harvest))
        hkl, angle = harvest.hkl, harvest.angle
        absent = [tuple(node) for node in hkl[harvest.n_peaks == 0].tolist()]
    assert np.linalg.norm(expected, axis=1).max() > 0.2 * centred.unit
    with centred.run(*second(f"threshold_action={action}", f"centring={centring}")) as harvest:
        np.testing.assert_array_equal(harvest.hkl, hkl)
        np.testing.assert_array_equal(harvest.angle, angle)
        np.testing.assert_array_equal(harvest.shift, expected)
        centred.check(harvest, action=action, centring=centring)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    missing = [text for text in warnings if "no Bragg peak in first.h5" in text]
    assert len(missing) == 1
    assert [node for node in absent if f"({node[0]}, {node[1]}, {node[2]}) at" not in missing[0]] == []
    assert "more than a quarter of DeltaQ_max from the node" in caplog.text


def test_centres_of_peaks_are_found_and_chains_of_harvests_keep_them(scan, monkeypatch):
    monkeypatch.chdir(scan.folder)
    draw_peaks(scan)
    with scan.run("save_to_file=first.h5") as harvest:
        assert not harvest.shift.any()
        whole = (harvest.angle > 22.5) & (harvest.angle < 33)  # of a scan from 20° to 35.6°
        assert whole.sum() >= 2
        np.testing.assert_allclose(peak_offsets(harvest)[whole], np.tile(DELTA, (whole.sum(), 1)), atol=0.004)
        first = peak_offsets(harvest)
    with scan.run(*second()) as harvest:
        peaked = ~np.isnan(first).any(axis=1)
        np.testing.assert_array_equal(harvest.shift, np.nan_to_num(first))
        np.testing.assert_allclose(peak_offsets(harvest)[peaked], 0, atol=1e-12)
        scan.check(harvest, fewest=500)
    with scan.run("centering_file=second.h5", "save_to_file=third.h5") as harvest:
        np.testing.assert_allclose(harvest.shift, np.nan_to_num(first), atol=1e-12)
        np.testing.assert_allclose(peak_offsets(harvest)[peaked], 0, atol=1e-12)


def test_a_smaller_shell_and_other_reflections_may_be_centred(centred, caplog):
    """Only blobs that both harvests have are found again."""
    more = [*centred.hkl[1:], (1, 1, 1), (-1, 2, 2)]
    with centred.run(*second("DeltaQ_max=0.4", f"collectSpots={more}")) as harvest, HarvestFile("first.h5") as old:
        offsets = dict(zip(map(tuple, old.hkl.tolist()), np.nan_to_num(peak_offsets(old)), strict=True))
        for node, shift in zip(map(tuple, harvest.hkl.tolist()), harvest.shift, strict=True):
            np.testing.assert_array_equal(shift, offsets.get(node, 0.0))
        assert centred.hkl[0] not in map(tuple, harvest.hkl.tolist())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dist=80.5", r"made with other values \(dist = 80 there, 80\.5 here\); give a harvest of this scan"),
        ("AA=6.11", r"made with other values \(AA = 6\.1 there, 6\.11 here\)"),
        ("r1=-131", "r1 = -130 there, -131 here"),
        ("normal_to_pol=(0, 0, 1)", "normal_to_pol"),
        ("frame_angle=number", None),
        ("centering_file=absent.h5", r"centering_file = .*absent\.h5: there is no such file"),
        ("centering_file=mask.npy", r"centering_file = .*mask\.npy: not a harvest file"),
        ("save_to_file=first.h5", "save_to_file would overwrite it"),
    ],
)
def test_only_the_same_scan_gives_centres(centred, override, message):
    overrides = [text for text in second() if text.partition("=")[0] != override.partition("=")[0]]
    if message is None:
        centred.run(*overrides, override).close()
        return
    with pytest.raises(InputError, match=message):
        centred.run(*overrides, override)


def test_frames_must_be_the_same_but_may_have_moved(centred):
    folder = centred.folder / "moved"
    folder.mkdir()
    for n in range(40):
        centred.frame(n).rename(folder / centred.frame(n).name)
    centred.run(*second("images_prefix=moved/frame_")).close()
    (folder / "frame_0039.cbf").rename(folder / "last.cbf")
    with pytest.raises(InputError, match=r"first\.h5: made of 40 frames, here are 39"):
        centred.run(*second("images_prefix=moved/frame_"))
    (folder / "last.cbf").rename(folder / "frame_0039.cbf")
    for n in range(40):
        (folder / f"frame_{n:04d}.cbf").rename(folder / f"f_{n:04d}.cbf")
    text = (centred.folder / "monitor.txt").read_text().replace("frame_", "f_")
    (centred.folder / "monitor.txt").write_text(text)
    with pytest.raises(InputError, match=r"its frame 0 is frame_0000\.cbf, here f_0000\.cbf"):
        centred.run(*second("images_prefix=moved/f_"))


def test_a_file_without_any_peak_centres_nothing(scan, monkeypatch, caplog):
    monkeypatch.chdir(scan.folder)
    scan.run("save_to_file=first.h5", "threshold=1e6").close()
    with scan.run(*second()) as harvest:
        assert not harvest.shift.any()
        scan.check(harvest)
    assert caplog.text.count("no Bragg peak in first.h5") == 1
