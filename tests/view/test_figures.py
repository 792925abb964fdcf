"""Pictures show what they should, on the right axes, and are the same each time."""

import subprocess
import sys
from types import SimpleNamespace

import h5py
import matplotlib
import numpy as np
import pytest

from tds2el.fit.bragg import BraggScale
from tds2el.fit.profiles import ProfileSums
from tds2el.model.engine import Points
from tds2el.view.figures import MOST, figures, pictured_spots
from tds2el.view.planes import CentralPlanes, central_planes, planes_sheets
from tds2el.view.residuals import correlations, pulls, worst_spots
from tds2el.view.scale import extinction_curve
from tds2el.view.spots import COLUMNS, ROWS, contact_sheets, spot_profiles
from tds2el.view.style import save
from tds2el.view.surfaces import slowness_sections, young_surface

SHELL = (0.02, 0.06)
CUBIC = np.diag([297.0] * 3 + [156.0] * 3)
CUBIC[:3, :3] += 94.0 - np.diag([94.0] * 3)


def fit_of(n_spots, held="A11", baseline=3.0):
    """What the pictures use of a fit file, with counts that follow the model."""
    rng = np.random.default_rng(1)
    hkl = np.array([(1 + n // 10, -(n % 10), 2) for n in range(n_spots)])
    points = Points(
        0.1 * hkl, np.full(n_spots, 500), np.full(n_spots, 10.0), np.ones(n_spots), SHELL[1], iter, SHELL[0]
    )
    left_out = np.zeros(n_spots, dtype=bool)
    left_out[1:2] = True
    sums = ProfileSums(points, left_out)
    for spot in range(n_spots):
        q = rng.normal(size=(500, 3))
        q *= (rng.uniform(*SHELL, 500) / np.linalg.norm(q, axis=1))[:, None]
        mean = 0.02 / (q**2).sum(axis=1) + baseline
        sums.add(spot, q, rng.poisson(np.maximum(mean, 0)).astype(float), np.ones(500), mean)
    chi2 = 1 + 0.01 * np.arange(n_spots)
    names = ["A11", "A44", "A12"]
    fitted = [name for name in names if name != held]
    return SimpleNamespace(
        constants=SimpleNamespace(
            held=held,
            unit=297.0 if held else 1.0,
            fitted=fitted,
            correlation=np.full((len(fitted), len(fitted)), -0.37) + 1.37 * np.eye(len(fitted)),
        ),
        frames={name: SimpleNamespace(stiffness=CUBIC, axes="x ∥ a, y ∥ b, z ∥ c") for name in ("W", "P")},
        density=3.58,
        shell=SHELL,
        bragg=None,
        profiles=sums.profiles(),
        spots=SimpleNamespace(
            hkl=hkl,
            centre=points.nodes,
            angle=10.0 + np.arange(n_spots),
            points=points.sizes,
            factor=np.full(n_spots, 0.02),
            sigma_factor=np.full(n_spots, 0.001),
            baseline=np.full(n_spots, baseline),
            sigma_baseline=np.full(n_spots, 0.1),
            chi2_per_dof=chi2,
            sigma_chi2_per_dof=np.full(n_spots, 0.06),
            left_out=left_out,
        ),
    )


@pytest.fixture(scope="module")
def fit():
    return fit_of(3)


def cube(n, scale=1.0):
    """A value that tells qx, qy and qz apart, linear in each."""
    axis = np.linspace(-0.06, 0.06, n)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    return axis, scale * (10 + x + 10 * y + 100 * z)


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


@pytest.mark.parametrize("n", [16, 17])
def test_planes_go_through_the_centre_along_their_two_axes(n, tmp_path):
    axis, values = cube(n)
    with h5py.File(tmp_path / "cubes.h5", "w") as file:
        planes = CentralPlanes.of_cubes((1, 0, -4), axis, file.create_dataset("data", data=values), 2 * values)
    first, second = axis[:, None], axis[None, :]
    np.testing.assert_allclose(planes.data[0], 10 + first + 10 * second)
    np.testing.assert_allclose(planes.data[1], 10 + first + 100 * second)
    np.testing.assert_allclose(planes.data[2], 10 + 10 * first + 100 * second)
    np.testing.assert_allclose(planes.simulation, 2 * planes.data)
    assert planes.hkl == (1, 0, -4)


@pytest.mark.parametrize("n", [64, 65])
def test_nodes_far_from_all_points_are_blank(n):
    axis, values = cube(n)
    points = np.zeros((n, n, n), dtype=int)
    points[50, 40, n // 2 + 2] = 3
    points[n // 2 - 20, 40, 7] = 1  # far from all central planes
    planes = CentralPlanes.of_cubes((1, 0, 0), axis, values, values, points=points)
    rows, columns = np.nonzero(planes.measured[0])
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (48, 52, 38, 42)
    assert not planes.measured[1:].any()
    sheet = central_planes(planes).axes[0].images[0].get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(sheet).T, ~planes.measured[0])


def test_planes_share_a_log_scale_and_the_difference_is_symmetric():
    axis, values = cube(33)
    planes = CentralPlanes.of_cubes((1, 0, -4), axis, values, 1.5 * values, angle=23.85)
    figure = central_planes(planes, SHELL, np.array([0.0, 0.0, 1.0]))
    panels = np.array(figure.axes[:9]).reshape(3, 3)
    for row, (x, y) in zip(panels, (("qx", "qy"), ("qx", "qz"), ("qy", "qz")), strict=True):
        data, simulation, difference = (axes.images[0] for axes in row)
        assert data.norm is simulation.norm
        assert isinstance(data.norm, matplotlib.colors.LogNorm)
        assert difference.norm.vmin == -difference.norm.vmax < 0
        assert {axes.get_xlabel() for axes in row} == {f"{x} (Å⁻¹)"}
        assert f"{y} (Å⁻¹)" in row[0].get_ylabel()
        assert all(axes.get_aspect() == 1 for axes in row)
        assert data.get_extent()[0] == pytest.approx(-0.06 - 0.06 / 32)
    radius = np.hypot(axis[:, None], axis[None])
    blank = (radius < SHELL[0]) | (radius > SHELL[1])
    np.testing.assert_array_equal(np.ma.getmaskarray(panels[0, 2].images[0].get_array()), blank)
    shown = panels[1, 2].images[0].get_array()  # rows run along qz
    assert shown[20, 26] == pytest.approx(-0.5 * (10 + axis[26] + 100 * axis[20]))
    assert "1 0 −4  at φ = 23.85°" in "".join(texts(figure))
    arrows = [[t for t in axes.texts if hasattr(t, "arrow_patch")] for axes in panels[:, 0]]
    assert [len(found) for found in arrows] == [0, 1, 1]  # G is perpendicular to the first plane
    assert arrows[1][0].xy == pytest.approx((0, 0.8 * SHELL[0]))


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_planes_without_a_positive_value_can_be_drawn(scale, tmp_path):
    axis, values = cube(8)
    planes = CentralPlanes.of_cubes((1, 0, 0), axis, scale * values, scale * values)
    central_planes(planes, SHELL).canvas.draw()
    for sheet in planes_sheets([planes], SHELL):
        sheet.canvas.draw()


def test_a_spots_profiles_are_those_of_the_file_with_error_bars(fit):
    figure = spot_profiles(fit, 2)
    panels = np.array(figure.axes).reshape(2, 3)
    for column, profile in zip(panels.T, (fit.profiles.radial, fit.profiles.angle, fit.profiles.azimuth), strict=True):
        bars = column[0].containers[0]
        np.testing.assert_array_equal(bars.lines[0].get_ydata(), profile.intensity[2])
        ends = np.array([segment[:, 1] for segment in bars.lines[2][0].get_segments()])
        np.testing.assert_allclose(ends[:, 1] - ends[:, 0], 2 * profile.sigma[2])
        curve = next(line for line in column[0].lines if line.get_label() == "fit")
        np.testing.assert_array_equal(curve.get_ydata(), profile.model[2])
        np.testing.assert_array_equal(curve.get_xdata(), profile.centres)
    assert [axes.get_xlabel() for axes in panels[1]] == [
        "|q| (Å⁻¹)",
        "angle between q and G (°)",
        "azimuth of q about G, from z (°)",
    ]
    assert panels[0, 0].get_ylabel() == "intensity (counts per unit correction)"
    assert panels[0, 0].get_yscale() == "log"
    assert "1 −2 2  at φ = 12.00°" in figure.get_suptitle()
    assert "f = 0.0200(10)" in figure.get_suptitle()


def test_negative_intensities_are_shown_on_a_linear_axis():
    fit = fit_of(1, baseline=-6.0)
    assert spot_profiles(fit, 0).axes[0].get_yscale() == "linear"
    assert next(contact_sheets(fit)).axes[0].get_yscale() == "linear"


def test_contact_sheets_show_every_spot_once():
    fit = fit_of(COLUMNS * ROWS + 2)
    sheets = list(contact_sheets(fit))
    titles = [axes.get_title() for sheet in sheets for axes in sheet.axes if axes.get_visible()]
    assert [title.split("  ")[0] for title in titles] == [
        " ".join(map(str, hkl)).replace("-", "−") for hkl in fit.spots.hkl.tolist()
    ]
    assert [title.endswith("left out") for title in titles] == fit.spots.left_out.tolist()
    assert "spots 49 to 50 of 50" in texts(sheets[1])


def test_a_spot_that_was_left_out_does_not_set_the_scale_of_a_contact_sheet():
    fit = fit_of(3)
    fit.profiles.radial.model[1] = -1e6
    assert next(contact_sheets(fit)).axes[0].get_yscale() == "log"
    fit.spots.left_out[:] = True
    assert next(contact_sheets(fit)).axes[0].get_ylim()[0] < -1e6


def test_pulls_are_compared_with_what_counts_give(fit):
    figure = pulls(fit)
    histogram, mean, rms = figure.axes
    stairs = {patch.get_label(): patch.get_data().values for patch in histogram.patches}
    np.testing.assert_array_equal(stairs["points of all spots"], fit.profiles.pulls.points)
    np.testing.assert_array_equal(stairs["expected if the fit is true"], fit.profiles.pulls.expected)
    gaussian = next(line for line in histogram.lines if line.get_label() == "unit Gaussian")
    x, y = gaussian.get_data()
    area = y.sum() * (x[1] - x[0]) / 0.2
    assert area == pytest.approx(1000, rel=1e-3)  # two spots of 500 points, the third was left out
    np.testing.assert_array_equal(mean.containers[0].lines[0].get_ydata(), fit.profiles.pulls.q_mean)
    np.testing.assert_array_equal(rms.containers[0].lines[0].get_ydata(), fit.profiles.pulls.q_rms)
    assert "1000 points" in histogram.get_title()


def test_worst_spots_come_first():
    fit = fit_of(30)
    axes = worst_spots(fit).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert (len(labels), labels[0]) == (20, "3 −9 2  at φ = 39.00°")
    assert axes.patches[0].get_x() + axes.patches[0].get_width() == pytest.approx(1.29)
    assert axes.yaxis_inverted()


def test_correlations_are_written_into_the_matrix(fit):
    axes = correlations(fit).axes[0]
    assert [text.get_text() for text in axes.texts] == ["1.00", "−0.37", "−0.37", "1.00"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A44", "A12"]
    assert axes.get_title().endswith("at fixed A11")


def test_extinction_curve_ends_at_the_scale():
    fit = fit_of(3)
    strength, sigma = np.array([0.2, 1.0, np.nan]), np.array([0.01, 0.01, np.nan])
    ratio = np.array([1.1, 1.0, np.nan])
    weights = np.array([0.5, 0.5, 0.0])
    fit.bragg = BraggScale(
        np.log(ratio), sigma, strength, ["", "", "saturated"], np.log(1.12), 0.02, 0.1, 0.02, 1.0, weights
    )
    names = [drawing.name for drawing in figures(fit)]
    assert "bragg_scale" in names
    axes = extinction_curve(fit, fit.bragg).axes[0]
    assert len(axes.texts) == 2
    curve = next(line for line in axes.lines if len(line.get_xdata()) == 100)
    assert curve.get_ydata()[0] == pytest.approx(1.12)
    assert np.interp(1.0, curve.get_xdata(), curve.get_ydata()) == pytest.approx(1.12 / np.sqrt(1.2), rel=1e-3)


@pytest.mark.parametrize(("held", "label", "unit"), [("A11", "s√(A11/ρ)", np.sqrt(297 / 3.58)), (None, "s (s/km)", 1)])
def test_slowness_is_relative_while_the_scale_is_held(held, label, unit):
    figure = slowness_sections(fit_of(1, held))
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"{label} along x"
    longitudinal, fast, slow = (line.get_xdata()[0] for line in axes.lines[:3])
    assert longitudinal == pytest.approx(unit / np.sqrt(297 / 3.58))
    assert fast == slow == pytest.approx(unit / np.sqrt(156 / 3.58))
    assert [panel.get_title() for panel in figure.axes] == ["xy plane", "xz plane", "yz plane"]
    assert all(panel.get_aspect() == 1 for panel in figure.axes)


@pytest.mark.parametrize(("held", "label", "unit"), [("A11", "E/A11", 297), (None, "E (GPa)", 1)])
def test_young_modulus_is_relative_while_the_scale_is_held(held, label, unit):
    figure = young_surface(fit_of(1, held))
    solid = figure.axes[0]
    section = next(axes for axes in figure.axes if axes.get_title() == "xy plane")
    assert section.get_ylabel() == f"{label} along y"
    along_a = 1 / np.linalg.inv(CUBIC)[0, 0]
    assert section.lines[0].get_xdata()[0] == pytest.approx(along_a / unit)
    assert (solid.get_xlabel(), solid.get_ylabel(), solid.get_zlabel()) == ("x", "y", "z")
    assert f"{along_a / unit:.4g} along (0.00, 0.00, 1.00)" in figure.get_suptitle()


def test_pictures_have_stable_names():
    axis, values = cube(12)
    planes = [
        CentralPlanes.of_cubes((1, 0, 2), axis, values, values),
        CentralPlanes.of_cubes((1, -1, 2), axis, values, values, angle=11.0),
    ]
    drawings = list(figures(fit_of(2), planes))
    assert [drawing.name for drawing in drawings] == [
        "planes_1",
        "profiles_1",
        "pulls",
        "worst_spots",
        "correlations",
        "slowness",
        "young_modulus",
        "planes_1_0_2",
        "planes_1_-1_2_11.00",
        "profiles_1_0_2_10.00",
        "profiles_1_-1_2_11.00",
    ]
    assert [drawing.one_spot for drawing in drawings] == [False] * 7 + [True] * 4
    assert all(drawing.title and drawing.caption.endswith(".") for drawing in drawings)


def test_only_the_worst_of_many_spots_have_planes_of_their_own():
    axis, values = cube(12)
    fit = fit_of(MOST + 1)
    planes = [CentralPlanes.of_cubes(hkl, axis, values, values) for hkl in fit.spots.hkl[[0, 1]]]
    names = (drawing.name for drawing in figures(fit, planes) if drawing.one_spot)
    assert next(names) == "planes_1_-1_2"
    assert next(names) == "profiles_1_-1_2_11.00"


@pytest.mark.parametrize("draw", [pulls, slowness_sections, lambda fit: spot_profiles(fit, 0)])
def test_pictures_are_the_same_each_time_whatever_the_users_matplotlibrc(fit, tmp_path, draw):
    before = dict(matplotlib.rcParams)
    save(draw(fit), tmp_path / "a.png")
    assert dict(matplotlib.rcParams) == before
    with matplotlib.rc_context({"font.size": 20, "axes.grid": True, "savefig.dpi": 30}):
        save(draw(fit), tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2  # no temporary file is left


def test_what_there_is_nothing_to_show_of_is_left_out():
    fit = fit_of(1)
    fit.frames = {"W": SimpleNamespace(stiffness=-CUBIC)}
    fit.constants = SimpleNamespace(held=None, unit=1.0, fitted=[], correlation=np.zeros((0, 0)))
    names = [drawing.name for drawing in figures(fit)]
    assert names == ["profiles_1", "pulls", "worst_spots", "profiles_1_0_2_10.00"]


def test_of_many_spots_the_worst_have_pictures_of_their_own():
    fit = SimpleNamespace(spots=SimpleNamespace(chi2_per_dof=np.array([2.0] * MOST + [1.0, 3.0, 1.5])))
    assert pictured_spots(fit) == [*range(MOST - 1), MOST + 1]


def test_matplotlib_is_loaded_only_to_draw_and_pyplot_never(tmp_path):
    code = (
        "import sys, tds2el.view.figures\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from tds2el.view.style import new_figure, save, style\n"
        "from pathlib import Path\n"
        "with style(): figure = new_figure(1, 1)\n"
        "save(figure, Path(sys.argv[1]))\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "empty.png")], check=True)
