"""What a fit file says is read back, and files that are none are refused with one clear line."""

import dataclasses

import h5py
import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.fit.fit_file import write_fit_file
from tds2el.fit.read import read_fit_file
from tds2el.fit.report import fit_report


@pytest.fixture
def path(scan, held, context, tmp_path):
    spots, kappa = held.spots, np.linspace(0.9, 1.1, 1500)

    def curve(blob):
        shape = scan.engine.intensity(scan.state, blob)
        return (kappa * (spots.factor[blob] * shape + spots.baseline[blob])).astype(np.float32)

    path = tmp_path / "tds2el_fit.h5"
    write_fit_file(path, held, dataclasses.replace(context, relative_error=0.01), curve, scan.points)
    return path


def test_all_that_was_written_is_read_back(path, held, context):
    fit = read_fit_file(path)
    constants = fit.constants
    assert (constants.names, constants.held, constants.scale) == (held.constants.names, "A11", "held")
    assert constants.status == ["held", *["fitted"] * 5]
    assert constants.unit == 147.1
    np.testing.assert_array_equal(constants.value, held.values)
    np.testing.assert_array_equal(constants.sigma_clustered, held.errors.clustered)
    np.testing.assert_array_equal(constants.covariance, held.covariance)
    np.testing.assert_array_equal(fit.frames["W"].stiffness, held.tensor)
    assert fit.frames["P"].axes == "x ∥ a, y ∥ b*, z ∥ c"
    assert list(fit.frames) == ["W", "P"]
    assert 0 < fit.moduli["bulk_reuss"][0] < fit.moduli["bulk_voigt"][0]
    np.testing.assert_array_equal(fit.spots.hkl, held.spots.hkl)
    np.testing.assert_allclose(fit.spots.chi2_per_dof, held.spots.chi2 / 1498)
    assert fit.spots.label[0] == "1 0 4 at 0.00°"
    assert len(fit.iterations.deviance) == len(held.iterations)
    assert (fit.deviance, fit.dof) == (held.deviance, held.dof)
    assert (fit.temperature, fit.density, fit.relative_error) == (300.0, 2.71, 0.01)
    np.testing.assert_allclose(fit.cell, (4.990, 4.990, 17.061, 90, 90, 120))
    assert (fit.system, fit.lost) == ("trigonal", {"masked": 120, "over_threshold": 34})
    assert (fit.settings["images_prefix"], fit.harvest_settings["images_prefix"]) == (None, "frames/a_")
    assert (fit.shell, fit.n_frames) == ((0.01, 0.03), 900)
    assert fit.inputs == ["input.par", "harvest.h5"]
    assert fit.warnings == list(context.warnings)
    assert fit.notes[0].startswith("The constants are isothermal")
    assert fit.report == fit_report(held, dataclasses.replace(context, relative_error=0.01))
    assert fit.program["device"] == context.device


def test_profiles_are_read_back(path, held):
    profiles = read_fit_file(path).profiles
    for profile in (profiles.radial, profiles.angle, profiles.azimuth):
        np.testing.assert_array_equal(profile.points.sum(axis=1), held.spots.points)
        assert profile.intensity.shape == profile.model.shape == (8, len(profile.centres))
    assert profiles.pulls.q_points.sum() == held.spots.points.sum()
    assert profiles.radial.edges[-1] == 0.03


def test_a_nexus_viewer_finds_axes_and_errors_of_each_profile(path):
    with h5py.File(path) as file:
        for name, unit in (("radial", "1/angstrom"), ("angle", "degrees"), ("azimuth", "degrees")):
            data = file[f"entry/profiles/{name}"]
            spot, axis = data.attrs["axes"]
            assert (data.attrs["NX_class"], data[axis].attrs["units"]) == ("NXdata", unit)
            assert data["intensity"].shape == data["intensity_errors"].shape == (len(data[spot]), len(data[axis]))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "there is no such file"),
        (lambda path: path.write_text("A11 = 3"), "not readable as HDF5"),
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "not readable as HDF5|damaged"),
        (lambda path: _attribute(path, "format", "tds2el harvest"), "not a fit of tds2el"),
        (lambda path: _attribute(path, "format_version", 99), r"written by another version .*format 99.* fit again"),
        (lambda path: _without(path, "entry/profiles"), "damaged .*profiles.*fit again"),
        (lambda path: _without(path, "entry/spots/factor"), "damaged .*factor.*fit again"),
    ],
)
def test_files_that_cannot_be_read_are_named(path, spoil, message):
    spoil(path)
    with pytest.raises(InputError, match=f"tds2el_fit.h5: {message}") as caught:
        read_fit_file(path)
    assert "\n" not in str(caught.value)


def _attribute(path, name, value):
    with h5py.File(path, "a") as file:
        file.attrs[name] = value


def _without(path, name):
    with h5py.File(path, "a") as file:
        del file[name]
