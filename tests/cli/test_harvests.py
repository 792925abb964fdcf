"""Harvests through the command line: round measured centres, with replicas, from tagged peaks."""

import pickle

import h5py
import numpy as np
import pytest

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import point_group, with_replicas
from tds2el.experiment.maxima import Maxima, write_maxima
from tds2el.fit.read import read_fit_file
from tds2el.harvest.centre import peak_offsets
from tds2el.harvest.file import HarvestFile

GROUP = point_group("1~,3(z),2(y)", Cell(4.990, 4.990, 17.061, 90, 90, 120), "R")


def refused(run, *overrides):
    outcome = run("scan/input.par", "--set", *overrides)
    assert outcome.code == 2
    return outcome.error


def offsets_in_table(text):
    """Length of the offset of every blob, in 1/Å, as listed."""
    lines = text[text.index(" blob ") :].splitlines()
    return [line.split()[-2] for line in lines[1 : lines.index("")]]


def test_centring_in_two_harvests(run, scan):
    # The simulated peaks are narrower than a pixel and lie on their nodes: measured centres err by its width.
    assert run("scan/input.par", "--set", "threshold=1000").code == 0
    options = ("threshold=1000", "save_to_file=scan/centred.h5", "centering_file=scan/harvest.h5")
    outcome = run("scan/input.par", "--set", *options, "show_hkls=1")
    assert outcome.code == 0, outcome.err
    with HarvestFile(scan.harvest) as first, HarvestFile(scan.folder / "centred.h5") as second:
        np.testing.assert_array_equal(second.hkl, first.hkl)
        np.testing.assert_array_equal(second.angle, first.angle)
        np.testing.assert_array_equal(second.shift, np.nan_to_num(peak_offsets(first)))
        assert 1e-4 < np.linalg.norm(second.shift, axis=1).max() < 0.8 / 90 / 0.7
        for blob in range(second.n_blobs):
            q = second.points(blob)[2] - second.centre[blob]
            radius = np.linalg.norm(q, axis=1)
            assert ((second.delta_min <= radius) & (radius <= second.delta_max)).all()
        total = second.shift + peak_offsets(second)
        absent = [str(tuple(node)) for node in first.hkl[first.n_peaks == 0].tolist()]
    assert 0 < len(absent) < len(scan.spots)
    assert outcome.err.count("tds2el: warning: ") == outcome.err.count("no Bragg peak in harvest.h5") == 1
    assert [node for node in absent if node not in outcome.err] == []
    lengths = ["-" if np.isnan(length) else f"{length:.5f}" for length in np.linalg.norm(total, axis=1)]
    assert offsets_in_table(outcome.out) == lengths
    # Another round from there; and its listing has nothing to warn of.
    again = (options[0], "save_to_file=scan/third.h5", "centering_file=scan/centred.h5")
    outcome = run("scan/input.par", "--set", *again)
    assert outcome.code == 0
    assert outcome.err.count("no Bragg peak in centred.h5") == 1
    outcome = run("scan/input.par", "--set", "load_from_file=scan/third.h5", "show_hkls=1", *options[:2], again[2])
    assert (outcome.code, outcome.err) == (0, "")


def test_a_centred_harvest_is_told_from_one_that_is_not(run, scan):
    outcome = run(
        "scan/input.par", "--set", "load_from_file=scan/harvest.h5", "centering_file=scan/harvest.h5", "show_hkls=1"
    )
    assert "other values of centering_file" in outcome.err


def test_wrong_centring(run, scan):
    scan.edit("experiment.par", save_to_file="centred.h5", dist=90.5)
    error = refused(run, "centering_file=scan/harvest.h5")
    assert "centering_file = " in error
    assert "dist = 90 there, 90.5 here" in error
    assert "give a harvest of this scan" in error
    scan.edit("experiment.par", save_to_file="harvest.h5")
    assert "save_to_file would overwrite it" in refused(run, "centering_file=scan/harvest.h5")


def test_replicas(run, scan):
    spots = scan.spots[:3]
    scan.edit("experiment.par", threshold=100)
    outcome = run(
        "scan/input.par", "--set", f"collectSpots={spots}", "REPLICA_COLLECTION=1", "save_to_file=scan/all.h5"
    )
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    expected = [tuple(node) for node in with_replicas(spots, GROUP).tolist()]
    with HarvestFile(scan.folder / "all.h5") as harvest:
        found = [tuple(node) for node in harvest.hkl[harvest.n_points > 0].tolist()]
        assert harvest.settings["collectSpots"] == [list(spot) for spot in spots]
    assert len(set(found)) > len(spots)
    assert set(found) < set(expected)
    note = next(line for line in outcome.out.splitlines() if "no point was harvested" in line)
    assert "equivalent reflections" in note
    for node in expected:
        assert (str(node) in note) == (node not in found)
    # What a fit run leaves out, or a list that it narrows, is no other harvest.
    outcome = run("scan/input.par", "--set", "load_from_file=scan/all.h5", "show_hkls=1", "REPLICA_COLLECTION=0")
    assert (outcome.code, outcome.err) == (0, "")
    outcome = run("scan/input.par", "--set", "load_from_file=scan/harvest.h5", "show_hkls=1", "REPLICA_COLLECTION=1")
    assert "REPLICA_COLLECTION" in outcome.err


def test_replicas_without_a_symmetry(run, scan):
    scan.edit("input.par", ascii_generators=...)
    assert "ascii_generators (because of REPLICA_COLLECTION)" in refused(run, "REPLICA_COLLECTION=1")


def tagged(path, hkl, accepted):
    place = np.zeros(len(hkl))
    write_maxima(path, Maxima(place, place, place, place, np.array(hkl), np.array(accepted)))


def test_tagged_peaks(run, scan):
    tagged(scan.folder / "tagged.h5", [*scan.spots, scan.spots[0], (0, 0, 0)], [True] * len(scan.spots) + [False, True])
    scan.edit("experiment.par", collectSpots=..., save_to_file="tagged_harvest.h5")
    scan.append("input.par", "file_maxima = 'tagged.h5'")
    outcome = run("scan/input.par", "--set", "show_hkls=1")
    assert (outcome.code, outcome.err) == (0, "")
    with h5py.File(scan.folder / "tagged_harvest.h5") as file:
        assert {tuple(node) for node in file["entry/blobs/hkl"][()].tolist()} == set(scan.spots[1:])


@pytest.mark.parametrize("wrong", ["missing", "pickle", "refused"])
def test_wrong_tagged_peaks(run, scan, wrong):
    scan.edit("experiment.par", collectSpots=...)
    scan.append("input.par", "file_maxima = 'tagged.h5'")
    path = scan.folder / "tagged.h5"
    if wrong == "pickle":
        path.write_bytes(pickle.dumps({(1, 0, 4): True}))
    if wrong == "refused":
        tagged(path, scan.spots, [False] * len(scan.spots))
    before = scan.contents()
    error = refused(run, "nred=1")
    assert "file_maxima = " in error
    assert {"missing": "no such file", "pickle": "never read", "refused": "no reflection has all"}[wrong] in error
    assert scan.contents() == before


def test_automatic_choice_then_fit(run, scan):
    scan.edit("experiment.par", collectSpots="auto", save_to_file="auto.h5")
    outcome = run("scan/input.par", "--set", "n_spots=7", "fitSpots=1", "doMinimisation=1", scan.guess())
    assert outcome.code == 0, outcome.err
    assert "collectSpots = auto: 7 of " in " ".join(outcome.out.split())
    with HarvestFile(scan.folder / "auto.h5") as harvest:
        chosen = harvest.settings["collectSpots"]
        assert {tuple(node) for node in harvest.hkl.tolist()} == {tuple(node) for node in chosen}
    assert len(chosen) == 7
    assert read_fit_file(scan.folder / "tds2el_fit.h5").iterations.converged
    # A fit of that harvest takes part of the list, and may be told to choose again.
    reuse = ("scan/input.par", "--set", "load_from_file=scan/auto.h5", "fitSpots=1", "doMinimisation=1", scan.guess())
    outcome = run(*reuse, f"collectSpots={chosen[:6]}")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(read_fit_file(scan.folder / "tds2el_fit.h5").spots.hkl) == 6
    outcome = run(*reuse, "n_spots=5")
    assert (outcome.code, outcome.err) == (0, "")
    assert len(read_fit_file(scan.folder / "tds2el_fit.h5").spots.hkl) == 5


def test_automatic_choice_with_replicas(run, scan):
    scan.edit("experiment.par", collectSpots="auto", save_to_file="auto.h5")
    outcome = run("scan/input.par", "--set", "n_spots=3", "REPLICA_COLLECTION=1", "threshold=100")
    assert (outcome.code, outcome.err) == (0, "")
    with HarvestFile(scan.folder / "auto.h5") as harvest:
        chosen = harvest.settings["collectSpots"]
        found = {tuple(node) for node in harvest.hkl.tolist()}
    assert len(chosen) == 3
    equivalent = {tuple(node) for node in with_replicas(np.array(chosen), GROUP).tolist()}
    assert {tuple(node) for node in chosen} <= found <= equivalent
    assert f"3 reflections and {len(equivalent) - 3} equivalent ones" in outcome.out


def test_automatic_choice_of_nothing_is_told_in_one_line(run, scan):
    scan.edit("experiment.par", collectSpots="auto")
    before = scan.contents()
    assert "no reflection passes as a whole" in refused(run, "DeltaQ_max=5")
    assert scan.contents() == before
