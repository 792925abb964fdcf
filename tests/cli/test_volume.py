"""DO_ELASTIC = 0 on the command line: what it needs, says and writes."""

import sys
from pathlib import Path

import numpy as np
import pytest

from tds2el.volume.file import VolumeFile

MPIRUN = Path(sys.executable).parent / "mpirun"
VOLUME = ("DO_ELASTIC=0", "volume_shape=33")


def test_a_volume_on_the_command_line(run, scan):
    """Radii, reflections and a harvest file are not needed; strong voxels lie on nodes that the lattice has."""
    scan.edit("experiment.par", DeltaQ_max=..., DeltaQ_min=..., collectSpots=...)
    scan.edit("input.par", save_to_file=...)
    outcome = run("scan/input.par", "--set", "DO_ELASTIC=0", "volume_shape=[81, 81, 161]", "microsteps=4")
    assert outcome.code == 0, outcome.err
    for words in (
        "81×81×161 voxels of ",
        "of memory per node, 1 pass over the frames",
        " % of the voxels are filled, by ",
        "brightest voxel: ",
        "60 frames read at ",
        "volume written to ",
    ):
        assert words in outcome.out
    with VolumeFile(scan.folder / "volume.h5") as volume:
        intensity = np.nan_to_num(volume.intensity[()])
        brightest = np.argsort(intensity, axis=None)[-20:]
        nodes = np.unravel_index(brightest, intensity.shape)
        hkl = np.column_stack([volume.grid.axis(n)[i] for n, i in enumerate(nodes)])
        off = np.abs(hkl - np.rint(hkl)) / volume.grid.steps
        assert (off.max(axis=1) <= 1.01).mean() > 0.9  # the halo is sampled too
        assert {int(-h + k + l) % 3 for h, k, l in np.rint(hkl)} == {0}  # R, obverse
        assert volume.settings["microsteps"] == 4


def test_averaged_by_the_symmetry(run, scan):
    outcome = run("scan/input.par", "--set", *VOLUME, "volume_symmetrise=1")
    assert outcome.code == 0, outcome.err
    assert "averaged over the 12 operations of 1~,3(z),2(y)" in outcome.out
    with VolumeFile(scan.folder / "volume.h5") as volume:
        counts = volume.counts[()]
        np.testing.assert_array_equal(counts, counts[::-1, ::-1, ::-1])  # the inversion
        np.testing.assert_array_equal(volume.grid.limits[0], volume.grid.limits[1])


def test_what_is_not_done_is_said(run, scan):
    outcome = run("scan/input.par", "--set", *VOLUME, "fitSpots=1", "load_from_file=scan/harvest.h5")
    assert outcome.code == 0
    assert "DO_ELASTIC = 0 reconstructs the volume and nothing else; load_from_file, fitSpots not used" in outcome.err
    assert not (scan.folder / "parametri.txt").exists()


@pytest.mark.parametrize(
    ("changes", "overrides", "words"),
    [
        ({"AA": ..., "angular_step": ...}, (), "a volume needs angular_step, AA; set in one of the par-files"),
        ({"ascii_generators": ...}, ("volume_symmetrise=1",), "ascii_generators (because of volume_symmetrise)"),
        ({}, ("volume_file=absent/v.h5",), "the folder "),
        ({}, ("volume_basis=[[1, 0, 0], [0, 1, 0], [1, 1, 0]]",), "volume_basis: its three vectors lie in a plane"),
        ({}, ("volume_axes='cartesian'", "volume_symmetrise=1"), "does not take the nodes of the grid to nodes"),
        ({}, ("volume_memory=1e-6",), "volume_memory: 1e-06 GB, but one layer of the volume takes "),
        ({}, ("images_prefix=scan/absent_",), "no file matches "),
    ],
)
def test_refused(run, scan, changes, overrides, words):
    (scan.folder / "volume.h5").write_bytes(b"an earlier volume")
    for file in ("input.par", "experiment.par"):
        text = (scan.folder / file).read_text(encoding="utf-8")
        scan.edit(file, **{name: value for name, value in changes.items() if f"{name} = " in text})
    outcome = run("scan/input.par", "--set", *VOLUME, *overrides)
    assert outcome.code == 2
    assert words in outcome.error
    assert (scan.folder / "volume.h5").read_bytes() == b"an earlier volume"
    assert not list(scan.folder.glob(".*.partial"))


INTERRUPTED = """
import sys
from tds2el.cli.main import main
from tds2el.volume.collect import FrameCollector
def interrupted(*arguments):
    raise KeyboardInterrupt
FrameCollector.{where} = interrupted
sys.exit(main())
"""


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("where", ["_read", "add_frames"])
def test_an_interrupt_leaves_the_old_volume(scan, process, ranks, where):
    if ranks > 1 and not MPIRUN.exists():
        pytest.skip(f"no mpirun beside {sys.executable}")
    (scan.folder / "volume.h5").write_bytes(b"an earlier volume")
    program = ("-c", INTERRUPTED.format(where=where))
    outcome = process(["scan/input.par", "--set", *VOLUME], scan.folder.parent, ranks, program=program)
    assert outcome.code == 130
    assert "Traceback" not in outcome.err
    assert (scan.folder / "volume.h5").read_bytes() == b"an earlier volume"
    assert not list(scan.folder.glob(".*.partial"))
