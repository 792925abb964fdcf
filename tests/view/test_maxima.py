"""Pictures of peaks and denominators show what they should, on the right axes."""

import numpy as np
import pytest

from tds2el.experiment.mask import FrameMasks
from tds2el.experiment.maxima import Maxima
from tds2el.view.maxima import WIDEST, maxima_picture
from tds2el.view.normalisation import FEW, normalisation_picture


class Series:
    """Frames in memory, each with its number as the count of one bright pixel."""

    def __init__(self, n_frames, shape):
        self.n_frames, self.shape = n_frames, shape
        self.names = [f"/data/scan_{n}.cbf" for n in range(n_frames)]

    def read(self, n):
        image = np.zeros(self.shape, dtype=np.int32)
        image[3, 5] = 100 + n
        image[0] = -1
        return image


def peaks(frame, saturated):
    n = len(frame)
    place = np.arange(n, dtype=float)
    return Maxima(
        place + 2, place + 7, np.array(frame, dtype=float), place, np.zeros((n, 3), dtype=int), np.zeros(n, dtype=bool),
        saturated=np.array(saturated),
    )  # fmt: skip


@pytest.mark.parametrize(("n_frames", "shown"), [(12, 4), (3, 3), (1, 1)])
def test_frames_with_most_peaks_of_all_parts(n_frames, shown):
    frame = [0.0, 1.2, 0.8, 7.3, 6.9, 11.0] if n_frames == 12 else [0.0]
    maxima = peaks(frame, [False, True, False, False, False, False][: len(frame)])
    shape = (30, 20)
    figure = maxima_picture(
        maxima, np.linspace(1, 2, n_frames), Series(n_frames, shape), FrameMasks(np.ones(shape, bool))
    )
    frames = [axes for axes in figure.axes if axes.images]
    assert len(frames) == shown
    if n_frames == 12:
        assert [axes.get_title() for axes in frames] == [
            f"scan_{n}.cbf, frame {n}: {number} centred here" for n, number in ((1, 2), (3, 0), (7, 2), (11, 1))
        ]
        plain, saturated = (collection.get_offsets() for collection in frames[0].collections)
        np.testing.assert_array_equal(plain, [[9, 4]])  # column and row
        np.testing.assert_array_equal(saturated, [[8, 3]])
        image = frames[2].images[0].get_array()
        assert image[3, 5] == 108  # a count of 0 is drawn as 1
        assert np.ma.getmaskarray(np.ma.masked_invalid(image))[0].all()
        per_frame, background = (axes for axes in figure.axes if not axes.images)
        np.testing.assert_array_equal(per_frame.patches[0].get_data().values, np.bincount([0, 1, 1, 7, 7, 11]))
        np.testing.assert_array_equal(background.patches[0].get_data().values, np.linspace(1, 2, 12))


def test_of_large_frames_the_brightest_pixel_of_a_block_is_seen():
    shape = (3 * WIDEST - 1, 40)
    figure = maxima_picture(peaks([0.0], [False]), np.ones(1), Series(1, shape), FrameMasks(np.ones(shape, bool)))
    (axes,) = (axes for axes in figure.axes if axes.images)
    image = axes.images[0].get_array()
    assert image.shape == (WIDEST, 14)
    assert image[1, 1] == 101
    assert axes.images[0].get_extent() == [-0.5, 41.5, -0.5, 3 * WIDEST - 0.5]
    assert axes.get_ylim() == (-0.5, shape[0] - 0.5)


def test_denominators():
    values = 1 + 0.1 * np.sin(np.arange(FEW + 1))
    (axes,) = normalisation_picture(values, "Flux", None).axes
    line = axes.lines[-1]
    np.testing.assert_array_equal(line.get_ydata(), values)
    np.testing.assert_array_equal(line.get_xdata(), np.arange(FEW + 1))
    assert axes.get_title() == "from Flux"
    (axes,) = normalisation_picture(values[:5], "counts", 0.1 * values[:5]).axes
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx(1.1 * values[:5].max())
    assert axes.get_legend() is not None
