"""Pictures of layers: the lattice lies on its Bragg peaks, and what was not measured looks like nothing else."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgba

from tds2el.crystal.cell import Cell
from tds2el.layer import layer_from_name
from tds2el.view.layers import draw_layers, layer_figure
from tds2el.view.style import NO_DATA
from tds2el.volume.grid import Grid
from tds2el.volume.layers import PlaneAxes, cut_volume

CELL = Cell(5.0, 6.0, 7.0, 80, 95, 112)
HALF = 0.8
N = 121


@pytest.fixture(scope="module")
def volume():
    """Q along x, y, z, a peak at each node, a gap and a plane without counts."""
    axis = np.linspace(-HALF, HALF, N)
    q = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    hkl = q @ CELL.A.T
    distance = np.linalg.norm((hkl - np.rint(hkl)) @ CELL.B.T, axis=-1)
    counts = 1 + 100 * np.exp(-0.5 * (distance / 0.015) ** 2)
    correction = np.ones(counts.shape)
    correction[np.abs(q[..., 0] - 0.3) < 0.03] = 0
    counts[(np.abs(q[..., 0] - 0.5) < 0.03) | (correction == 0)] = 0
    grid = Grid("cartesian", CELL, (N, N, N), np.array([[-HALF, HALF]] * 3), np.eye(3), np.zeros(3))
    return SimpleNamespace(
        path=Path("volume.h5"), grid=grid, cell=CELL, counts=counts, correction=correction, background=None
    )


@pytest.mark.parametrize("name", ["hk0", "h1l", "-1kl"])
def test_lines_of_the_lattice_cross_on_its_peaks(volume, name):
    layer = layer_from_name(name)
    cut = cut_volume(volume, layer)
    figure = layer_figure(cut, CELL, "volume.h5")
    figure.canvas.draw()
    axes = figure.axes[0]
    top, right = (child for child in axes.child_axes)
    (first, second), labels = layer.free, {}
    for key, axis in (("first", top.xaxis), ("second", right.yaxis)):
        ticks = zip(axis.get_ticklocs(), axis.get_ticklabels(), strict=True)
        labels[key] = {int(text.get_text().replace("−", "-")): place for place, text in ticks}
    slanted = [line for line in axes.lines if line.get_ydata()[0] != line.get_ydata()[1]]
    left, _, bottom, _ = cut.extent
    pixel = (cut.extent[1] - left) / cut.intensity.shape[1]
    plane, seen = PlaneAxes(layer, CELL), 0
    for n, x_top in labels["first"].items():
        line = min(slanted, key=lambda line, x=x_top: abs(line.get_xdata()[1] - x))
        for m, y in labels["second"].items():
            (x0, x1), (y0, y1) = line.get_xdata(), line.get_ydata()
            x = x0 + (x1 - x0) * (y - y0) / (y1 - y0)
            hkl = np.zeros(3)
            hkl[layer.index], hkl[first], hkl[second] = layer.value, n, m
            np.testing.assert_allclose((x, y), plane.to_plane(CELL.B @ hkl), atol=1e-9)
            row, column = int((y - bottom) / pixel), int((x - left) / pixel)
            if 0 <= row < cut.intensity.shape[0] and 0 <= column < cut.intensity.shape[1]:
                value = cut.intensity[row, column]
                seen += value > 50
                assert np.isnan(value) or value == 0 or value > 50
    assert seen > 10


def test_what_was_not_measured_differs_from_no_counts(volume):
    cut = cut_volume(volume, layer_from_name("hk0"))
    assert np.isnan(cut.intensity).any()
    assert (cut.intensity == 0).any()
    figure = layer_figure(cut, CELL, "volume.h5")
    axes, image = figure.axes[0], figure.axes[0].images[0]
    shown = image.get_array()
    np.testing.assert_array_equal(np.ma.getmaskarray(np.ma.masked_invalid(shown)), np.isnan(cut.intensity))
    zero = image.cmap(image.norm(shown[cut.intensity == 0][0]))
    assert axes.get_facecolor() == to_rgba(NO_DATA)
    assert np.abs(np.array(zero) - to_rgba(NO_DATA)).max() > 0.5
    assert tuple(image.cmap(np.ma.masked))[3] == 0  # the background shows through
    assert "not measured" in axes.get_title()


def test_a_layer_without_counts_is_drawn_too(volume):
    dark = SimpleNamespace(**{**vars(volume), "counts": np.zeros(volume.counts.shape)})
    layer_figure(cut_volume(dark, layer_from_name("hk0")), CELL, "volume.h5").canvas.draw()


def test_pictures_lie_beside_the_volume_and_are_the_same_each_time(volume, tmp_path, caplog):
    caplog.set_level("INFO", "tds2el")
    source = SimpleNamespace(**{**vars(volume), "path": tmp_path / "calcite.h5"})
    written = draw_layers(source, [layer_from_name(name) for name in ("hk0", "h0.5l", "99kl")])
    assert written == [tmp_path / "calcite_hk0.png", tmp_path / "calcite_h0.5l.png"]
    assert "no picture of 99kl" in caplog.text
    first = written[0].read_bytes()
    draw_layers(source, [layer_from_name("hk0")])
    assert written[0].read_bytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calcite_h0.5l.png", "calcite_hk0.png"]
