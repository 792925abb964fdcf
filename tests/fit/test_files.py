"""parametri.txt reads as a par-file; tds2el_fit.h5 holds everything; neither is ever half written."""

import dataclasses
import json

import h5py
import numpy as np
import pytest

from tds2el.errors import InputError
from tds2el.fit.fit_file import write_fit_file
from tds2el.fit.parametri import write_parametri
from tds2el.parfile import read_parfile


def expected_counts(scan, result, blob):
    spots, kappa = result.spots, np.linspace(0.9, 1.1, 1500)
    shape = scan.engine.intensity(scan.state, blob)
    return (kappa * (spots.factor[blob] * shape + spots.baseline[blob])).astype(np.float32)


@pytest.fixture
def fit_file(scan, held, context, tmp_path):
    path = tmp_path / "tds2el_fit.h5"
    write_fit_file(path, held, context, lambda blob: expected_counts(scan, held, blob), scan.points)
    with h5py.File(path) as file:
        yield file


def test_parametri_reads_as_a_par_file_with_the_very_values(held, context, tmp_path):
    path = tmp_path / "parametri.txt"
    write_parametri(path, held, context)
    found = {a.name: a.value for a in read_parfile(path).assignments}
    assert list(found) == held.constants.names
    assert list(found.values()) == list(held.values)
    lines = path.read_text().splitlines()
    a33 = next(line for line in lines if line.startswith("A33"))
    sigma, ratio = held.errors.largest[1], held.values[1] / 147.1
    assert f"# sigma {sigma:.3g}, start 93.83, bounds 0 to 500, unit GPa, fitted, ratio to A11 {ratio:.4f}(" in a33
    assert any(line.endswith("unit GPa, held") for line in lines if line.startswith("A11"))
    header = "\n".join(line for line in lines if line.startswith("#"))
    for part in ("x ∥ a*, y ∥ b, z ∥ c", "scale held: A11", "input: input.par", "warning: conf.par:3", "tds2el 0."):
        assert part in header
    spots = [line for line in lines if line.startswith("#    1    0    4")]
    assert float(spots[0].split()[6]) == pytest.approx(held.spots.factor[0], rel=1e-6)


def test_parametri_of_a_simulation_says_that_its_constants_were_given(known, context, tmp_path):
    path = tmp_path / "parametri.txt"
    write_parametri(path, known, dataclasses.replace(context, simulated=True))
    assert "scale as given" in path.read_text()
    assert all("as given" in line for line in path.read_text().splitlines() if line.startswith("A"))


def test_the_fit_file_holds_the_constants_and_their_errors(fit_file, held):
    group = fit_file["entry/constants"]
    assert list(group["name"].asstr()) == held.constants.names
    assert list(group["status"].asstr()) == ["held", *["fitted"] * 5]
    assert (group.attrs["scale"], group.attrs["held"], group["value"].attrs["units"]) == ("held", "A11", "GPa")
    np.testing.assert_array_equal(group["value"], held.values)
    np.testing.assert_array_equal(group["upper"], np.full(6, 500.0))
    three = np.array([group[f"sigma_{name}"] for name in ("poisson", "scaled", "clustered")])
    np.testing.assert_array_equal(group["sigma"][1:], three[:, 1:].max(axis=0))
    np.testing.assert_allclose(np.sqrt(np.diag(group["covariance"])), group["sigma"][1:], rtol=1e-12)
    np.testing.assert_allclose(np.diag(group["correlation"]), 1.0)
    assert list(group["fitted"].asstr()) == held.constants.names[1:]
    np.testing.assert_allclose(group["ratio"][()] * 147.1, held.values)


def test_the_fit_file_holds_tensor_moduli_and_iterations(fit_file, held):
    entry = fit_file["entry"]
    w, p = entry["tensor/W"], entry["tensor/P"]
    np.testing.assert_array_equal(w["stiffness"], held.tensor)
    assert p["stiffness"][0, 3] == pytest.approx(held.values[5], rel=1e-12)
    assert p["stiffness_errors"][0, 3] == pytest.approx(held.errors.largest[5], rel=1e-12)
    assert p.attrs["axes_in_words"] == "x ∥ a, y ∥ b*, z ∥ c"
    np.testing.assert_allclose(p["rotation"][()] @ p["rotation"][()].T, np.eye(3), atol=1e-15)
    assert sum(entry["tensor/eigenvalues"]) == pytest.approx(np.trace(held.tensor) + np.trace(held.tensor[3:, 3:]))
    assert 0 < entry["moduli/bulk_reuss"][()] < entry["moduli/bulk_voigt"][()]
    assert len(entry["iterations/deviance"]) == len(held.iterations)
    np.testing.assert_array_equal(entry["iterations/constants"][-1], held.values)


def test_the_fit_file_holds_measured_and_expected_counts_spot_by_spot(fit_file, held, scan):
    curve = fit_file["entry/curve"]
    np.testing.assert_array_equal(curve["offset"], 1500 * np.arange(9))
    np.testing.assert_array_equal(curve["counts"], scan.counts.reshape(-1))
    variance = curve["expected"][()]
    chi2 = np.add.reduceat((curve["counts"] - variance) ** 2 / variance, curve["offset"][:-1])
    np.testing.assert_allclose(chi2, held.spots.chi2, rtol=1e-5)


def test_a_nexus_viewer_is_led_to_chi2_per_spot(fit_file, held):
    assert fit_file.attrs["NX_class"] == "NXroot"
    entry = fit_file[fit_file.attrs["default"]]
    data = entry[entry.attrs["default"]]
    assert (entry.attrs["NX_class"], data.attrs["NX_class"]) == ("NXentry", "NXdata")
    signal, axis = data[data.attrs["signal"]], data[data.attrs["axes"]]
    assert signal.shape == axis.shape == data[f"{data.attrs['signal']}_errors"].shape == (8,)
    np.testing.assert_allclose(signal, held.spots.chi2 / 1498)
    np.testing.assert_array_equal(data["hkl"], held.spots.hkl)
    np.testing.assert_array_equal(data["factor_errors"], held.spots.sigma_factor)


def test_the_fit_file_says_where_it_comes_from(fit_file):
    process, conditions = fit_file["entry/process"], fit_file["entry/conditions"]
    assert json.loads(process["settings"][()])["DeltaQ_max"] == 0.15
    assert list(process["inputs"].asstr()) == ["input.par", "harvest.h5"]
    assert list(fit_file["entry/warnings"].asstr()) == ["conf.par:3: lmbda is assigned again"]
    assert (conditions["temperature"][()], conditions["temperature"].attrs["units"]) == (300.0, "K")
    assert conditions["lost_over_threshold"][()] == 34
    np.testing.assert_array_equal(conditions["direct_beam"], [512.25, 498.5])


@pytest.mark.parametrize("failure", [ZeroDivisionError(), InputError("the harvest vanished"), KeyboardInterrupt()])
def test_a_crash_leaves_the_old_file_as_it_was(scan, held, context, tmp_path, failure):
    path = tmp_path / "tds2el_fit.h5"
    path.write_bytes(b"old")

    def curve(blob):
        if blob == 3:
            raise failure
        return expected_counts(scan, held, blob)

    with pytest.raises(type(failure)):
        write_fit_file(path, held, context, curve, scan.points)
    assert [file.name for file in tmp_path.iterdir()] == ["tds2el_fit.h5"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_not_there_is_a_clear_error(scan, held, context, tmp_path):
    path = tmp_path / "nowhere" / "result"
    with pytest.raises(InputError, match=r"output_folder: .*nowhere/result cannot be written"):
        write_parametri(path, held, context)
    with pytest.raises(InputError, match=r"output_folder: .*nowhere/result cannot be written"):
        write_fit_file(path, held, context, lambda blob: expected_counts(scan, held, blob), scan.points)
