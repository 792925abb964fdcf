"""One scan of the crystal among those that make up a volume: all that is read of it before its frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tds2el.experiment.background import Background, read_background
from tds2el.experiment.frames import FrameSeries, open_frame_series
from tds2el.experiment.geometry import Geometry
from tds2el.experiment.headers import Headers
from tds2el.experiment.mask import FrameMasks
from tds2el.experiment.monitor import read_normalisation
from tds2el.harvest.inputs import frame_masks
from tds2el.settings import Settings
from tds2el.volume.grid import View

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sweep:
    """A scan, and which of its frames are used.

    Attributes
    ----------
    geometry : Geometry
    series : FrameSeries
    frames : ndarray of int
        Those that are used.
    phi, denominator : ndarray, shape (frames,)
        Of these; degrees.
    masks : FrameMasks
    background : Background or None
    threshold, saturation : float
        Counts above the first or at least the second are too low to be right.
    """

    geometry: Geometry
    series: FrameSeries
    frames: npt.NDArray[np.int64]
    phi: Array
    denominator: Array
    masks: FrameMasks
    background: Background | None
    threshold: float
    saturation: float

    @property
    def names(self) -> list[str]:
        """Names of the frames that are used."""
        return [self.series.names[n] for n in self.frames]

    @property
    def n_pixels(self) -> int:
        """Of a frame."""
        return self.series.shape[0] * self.series.shape[1]

    @property
    def view(self) -> View:
        """What its detector sees, and when."""
        return View(self.geometry, self.phi, abs(self.geometry.experiment.angular_step), self.series.shape)

    @property
    def background_variance(self) -> Array:
        """Variance of the background's estimate in a frame with the denominator 1, (rows, columns); 0 without one."""
        if self.background is None:
            return np.zeros(self.series.shape)
        exposure = self.background.exposure
        return (self.background.rate * exposure + 1) / exposure**2  # (N + 1)/T²


def read_sweep(settings: Settings, scanned: Headers) -> tuple[Sweep, list[str]]:
    """Read all of a scan but its frames, of which the headers are given; and what to tell of it.

    Raises
    ------
    InputError
        For any fault of the inputs.
    """
    frames, experiment = settings.frames, settings.experiment
    assert frames is not None  # as load_settings has made sure
    assert experiment is not None
    geometry = Geometry(experiment)
    row, column = geometry.direct_beam()
    notes = [f"direct beam at row {row:.2f}, column {column:.2f}"]
    series = open_frame_series(frames, experiment.angular_step, scanned)
    background = read_background(frames, series.shape)
    if background is not None:
        notes.append(f"background of {background.n_frames} frames; {(~background.good).sum()} of its pixels are bad")
    denominator = np.ones(series.n_frames)
    if frames.normalisation_file is not None:
        denominator = read_normalisation(frames.normalisation_file, series)
    used = np.arange(0, series.n_frames, settings.volume.every_nth_frame)
    threshold, cutoff = settings.harvest.threshold, series.count_cutoff
    sweep = Sweep(
        geometry=geometry,
        series=series,
        frames=used,
        phi=geometry.phi(series.angle_index[used]),
        denominator=denominator[used],
        masks=frame_masks(frames, series, background),
        background=background,
        threshold=np.inf if threshold is None else threshold,
        saturation=np.inf if cutoff is None else cutoff,
    )
    return sweep, notes
