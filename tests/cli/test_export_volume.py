"""Pictures at the end of a reconstruction, and what is made of volume.h5 afterwards."""

import gemmi
import h5py
import numpy as np
import pytest

GRID = ("DO_ELASTIC=0", "volume_shape=[41,41,65]", "volume_limits=[[-5,5],[-5,5],[-16,16]]")


@pytest.fixture
def volume(run, scan):
    """A volume of the scan, without pictures."""
    outcome = run("scan/input.par", "--set", *GRID, "volume_layers=[]")
    assert outcome.code == 0, outcome.err
    assert not list(scan.folder.glob("*.png"))
    return scan.folder / "volume.h5"


def test_a_reconstruction_ends_with_pictures(run, scan):
    outcome = run("scan/input.par", "--set", *GRID, "volume_layers=['hk0', '0kl', 'hk15.5', '40kl']")
    assert outcome.code == 0, outcome.err
    written = {path.name for path in scan.folder.glob("*.png")}
    assert {"volume_hk0.png", "volume_0kl.png"} <= written
    assert "no picture of 40kl" in outcome.out
    assert f"{scan.folder}/volume_hk0.png" in outcome.out


def test_a_volume_for_other_programs(run, volume, tmp_path):
    arguments = ("--yell", tmp_path / "yell.h5", "--map", tmp_path / "v.ccp4", "--layers", "hk0.5")
    outcome = run("export-volume", "scan", *arguments, "--layers=-1kl", "--thickness", "1")
    assert outcome.code == 0, outcome.err
    assert f"map in {tmp_path}/v.ccp4" in outcome.out
    with h5py.File(volume) as ours, h5py.File(tmp_path / "yell.h5") as yell:
        intensity = ours["entry/volume/intensity"][()]
        assert np.isfinite(intensity).sum() > 1000
        np.testing.assert_array_equal(yell["data"][()], intensity)
    ccp4 = gemmi.read_ccp4_map(str(tmp_path / "v.ccp4"), setup=False)
    np.testing.assert_array_equal(np.asarray(ccp4.grid.array), np.nan_to_num(intensity))
    assert {path.name for path in volume.parent.glob("*.png")} == {"volume_hk0.5.png", "volume_-1kl.png"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to export"),
        (["--layers", "hk0", "hl"], "--layers 'hl' is no layer"),
        (["--layers", "hk0", "--thickness", "0"], "--thickness 0: give a number above 0"),
        (["--map", "x.ccp4", "--thickness", "1"], "--thickness 1: give a number above 0, for pictures of --layers"),
        (["--yell", "nowhere/x.h5"], "--yell nowhere/x.h5: not the name of a new file"),
        (["--yell", "scan/volume.h5"], "--yell scan/volume.h5: not the name of a new file"),
        (["--map", "scan"], "--map scan: not the name of a new file"),
    ],
)
def test_mistakes_are_one_clear_line(run, volume, arguments, says):
    before = volume.read_bytes()
    outcome = run("export-volume", "scan/volume.h5", *arguments)
    assert outcome.code == 2
    assert says in outcome.error
    assert volume.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "says"),
    [("scan/none.h5", "no such file"), ("scan/harvest.h5", "no volume"), ("scan/monitor.txt", "not a volume")],
)
def test_what_is_no_volume_is_refused(run, scan, name, says):
    outcome = run("export-volume", name, "--map", "x.ccp4")
    assert outcome.code == 2
    assert says in outcome.error
    assert not (scan.folder.parent / "x.ccp4").exists()


@pytest.mark.parametrize("value", ["'hk0'", "['hk']", "[1]", "None"])
def test_layers_that_are_none_are_refused_at_once(run, scan, value):
    outcome = run("scan/input.par", "--set", *GRID, f"volume_layers={value}")
    assert outcome.code == 2
    assert "volume_layers" in outcome.error
    assert not (scan.folder / "volume.h5").exists()
