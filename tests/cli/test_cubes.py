"""visSim: the cubes of data and simulation that a run leaves, and what viewers make of them."""

import json

import h5py
import numpy as np
import pytest

from tds2el.view.interpolate import CubeInterpolator

FIT = ["load_from_file=scan/harvest.h5", "fitSpots=1", "doMinimisation=1", "visSim=1", "testSpot_N=16"]


@pytest.fixture
def fitted(run, scan):
    """Runs the fit with cubes in the scan's folder."""

    def fit(*options):
        return run("scan/input.par", "--set", *FIT, scan.guess(), *options)

    return fit


def test_every_spot_has_cubes_that_open_on_the_right_plot(fitted, scan):
    from silx.io import nxdata

    outcome = fitted()
    assert outcome.code == 0
    with h5py.File(scan.folder / "simtests.h5") as file:
        names = [name for name in file["entry"] if name.startswith("spot_")]
        assert {tuple(int(i) for i in file["entry"][name].attrs["hkl"]) for name in names} == set(scan.spots)
        plot = nxdata.get_default(file)
        assert plot.is_valid
        assert plot.signal.shape == (16, 16, 16)
        assert plot.signal.name == f"/entry/{names[0]}/data/data"
        assert plot.plot_style.signal_scale_type == "log"
        h, k, l = file["entry"][names[0]].attrs["hkl"]
        assert plot.title.startswith(f"({h} {k} {l})")
        assert [axis.attrs["units"] for axis in plot.axes] == ["1/angstrom"] * 3
        for name in names:
            spot = file["entry"][name]
            data, simulation, difference = (spot[f"{kind}/{kind}"][()] for kind in ("data", "simulation", "difference"))
            assert np.array_equal(difference, data - simulation)
            with h5py.File(scan.harvest) as harvest:
                offset = harvest["entry/blobs/point_offset"]
                assert spot["points/points"][()].sum() == sum(offset[b + 1] - offset[b] for b in spot["blobs"])
            assert spot.attrs["points_left_out"] == 0
            inner = np.linalg.norm(np.stack(np.meshgrid(*[spot["data/qx"]] * 3, indexing="ij")), axis=0)
            seen = spot["points/points"][()] > 0
            # Data and simulation are the same halo but for noise.
            assert np.corrcoef(data[seen], simulation[seen])[0, 1] > 0.5
            assert inner.max() > 0
        settings = json.loads(file["entry/process/settings"][()])
        assert settings["testSpot_N"] == 16
        assert list(file["entry/constants/name"].asstr()) == ["A11", "A33", "A44", "A66", "A13", "A15"]


def test_fit_and_harvest_files_open_on_a_plot_with_units(fitted, scan):
    from silx.io import nxdata

    assert fitted("visSim=0").code == 0
    for name in ("tds2el_fit.h5", "harvest.h5"):
        with h5py.File(scan.folder / name) as file:
            plot = nxdata.get_default(file)
            assert plot.is_valid
            assert all("units" in axis.attrs for axis in plot.axes)
            assert "units" in plot.signal.attrs


def test_the_report_shows_the_planes_of_its_own_fit_only(fitted, scan):
    assert fitted("report=True", "collectSpots=[[-3, 3, 0]]").code == 0
    figures = scan.folder / "figures"
    assert (figures / "planes_-3_3_0.png").is_file()
    for picture in figures.iterdir():
        picture.unlink()
    # Other constants: the cubes of the last fit are not its.
    assert fitted("report=True", "visSim=0", "nred=2").code == 0
    assert not list(figures.glob("planes_*"))


def test_ctrl_c_keeps_the_spots_that_are_done(fitted, scan, monkeypatch):
    solve, calls = CubeInterpolator.solve, []

    def interrupted(self, *arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return solve(self, *arguments)

    monkeypatch.setattr(CubeInterpolator, "solve", interrupted)
    outcome = fitted()
    assert outcome.code == 130
    assert f"holds 2 of {len(scan.spots)} spots" in outcome.err
    with h5py.File(scan.folder / "simtests.h5") as file:
        names = [name for name in file["entry"] if name.startswith("spot_")]
        assert len(names) == 2
        assert all("points/points" in file["entry"][name] for name in names)


def test_an_interrupt_before_the_first_spot_keeps_an_older_file(fitted, scan, monkeypatch):
    (scan.folder / "simtests.h5").write_text("older")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(CubeInterpolator, "solve", interrupted)
    assert fitted().code == 130
    assert (scan.folder / "simtests.h5").read_text() == "older"
