"""Gathering the points of one rank's frames, a block of frames at a time, on the rank's threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.experiment.frames import Source
from tds2el.harvest.assemble import Piece, PointList
from tds2el.harvest.file import LOSSES
from tds2el.harvest.inputs import Inputs

IntArray = npt.NDArray[np.int64]


class FrameGatherer:
    """Reads frames and keeps what it finds, in the order of frames whatever the number of threads.

    CBFs and the packed frames of Eiger files are read and decoded in compiled code, and only where a region wants
    their pixels; frames of any other kind come through fabio, one at a time. What is kept of a point is its pixel and
    counts; Q and the correction are computed when they are written.

    Attributes
    ----------
    frames : ndarray of int
        The frames that see anything, ascending; others are never opened.
    threads : int
    points, peaks : PointList
    lost : ndarray of int, shape (blobs, causes)
    hot_frames : ndarray of int, shape (blobs,)
        Frames with pixels above the threshold.
    """

    def __init__(self, inputs: Inputs, threads: int, check_md5: bool = False) -> None:
        from tds2el._core import RegionGatherer

        plan, geometry = inputs.plan, inputs.geometry
        in_plane, normal = geometry.polarisation_axes
        self._inputs, self.threads, self._check_md5 = inputs, threads, check_md5
        self._gatherer = RegionGatherer(
            mask=inputs.masks.scan,
            pixel_to_lab=geometry.pixel_to_lab,
            origin=geometry.origin,
            pixel_size=geometry.experiment.pixel_size,
            sensor_thickness=geometry.experiment.sensor_thickness,
            sensor_mu=geometry.experiment.sensor_mu,
            beam=geometry.beam,
            lmbda=geometry.experiment.lmbda,
            in_plane=in_plane,
            normal=normal,
            pol_degree=geometry.experiment.pol_degree,
            dist=geometry.experiment.dist,
            centres=inputs.hkl[plan.node] @ inputs.cell.B.T,
            shifts=plan.shift,
            neighbours=np.concatenate(inputs.neighbours),
            neighbour_offsets=np.cumsum([0, *(len(v) for v in inputs.neighbours)]),
            delta_min=inputs.delta_min,
            delta_max=inputs.delta_max,
            threshold=inputs.threshold,
            saturation=inputs.saturation,
            border=inputs.border,
            threads=threads,
        )
        self._masks_in_force: tuple[int, ...] = ()
        self.frames, first = np.unique(plan.frame, return_index=True)
        self._first = np.append(first, plan.frame.size)
        # Lab to crystal, of all frames at once: no rank has other bits than the rest.
        self._turns = geometry.lab_to_crystal(geometry.phi(inputs.series.angle_index[self.frames]))
        n_blobs = len(plan.node)
        self.points, self.peaks = PointList(), PointList()
        self.lost = np.zeros((n_blobs, len(LOSSES)), dtype=np.int64)
        self.hot_frames = np.zeros(n_blobs, dtype=np.int64)

    def read(self, part: IntArray) -> None:
        """Read some of the frames, by successive indices into `frames`.

        Raises
        ------
        InputError
            Names the frame that has vanished, is truncated or damaged, or of another shape.
        """
        masks = self._inputs.masks
        if self._check_md5:
            with ThreadPoolExecutor(self.threads) as pool:
                list(pool.map(self._inputs.series.check_md5, self.frames[part].tolist()))
        for chosen, group in groupby(part.tolist(), lambda i: masks.in_force(int(self.frames[i]))):
            members = list(group)
            if self._masks_in_force != chosen:
                self._gatherer.set_mask(masks.mask(int(self.frames[members[0]])))
                self._masks_in_force = chosen
            self._inputs.series.feed(self.frames[members].tolist(), self._gather)

    def _gather(self, part: Sequence[int], sources: Sequence[Source]) -> list[tuple[int, str]]:
        """Add what is found in successive frames, or return what is wrong with them."""
        frames, plan = np.array(part), self._inputs.plan
        members = np.searchsorted(self.frames, frames)
        visits = slice(self._first[members[0]], self._first[members[-1] + 1])
        number = np.diff(self._first[members[0] : members[-1] + 2])
        blobs = plan.blob[visits]
        points, peaks, lost, hot, faults = self._gatherer.frames(
            sources, self._turns[members], np.cumsum(number), blobs, plan.region[visits]
        )
        if faults:
            return faults
        frame_of_visit = np.repeat(frames, number)
        self.points.add(frame_of_visit, blobs, *points)
        self.peaks.add(frame_of_visit, blobs, *peaks)
        np.add.at(self.lost, blobs, lost)
        np.add.at(self.hot_frames, blobs, hot)
        return []

    def column(self, name: str, piece: Piece) -> npt.NDArray[Any]:
        """A column of a piece of `points` or `peaks`: row, column, frame, counts, correction, Q or background."""
        if name == "counts":
            return piece.counts()
        if name == "frame":
            return np.repeat(piece.frame.astype(np.int32), piece.number)
        row = piece.row()
        if name == "row":
            return row
        column = piece.column()
        if name == "column":
            return column
        if name == "Q":
            turns = self._turns[np.searchsorted(self.frames, piece.frame)]
            return self._gatherer.places(row, column, piece.number, turns, piece.blob)
        denominators = self._inputs.denominator[piece.frame]
        if name == "correction":
            return self._gatherer.corrections(row, column, piece.number, denominators)
        assert self._inputs.background is not None
        rate = self._inputs.background.rate[row, column]
        return (rate * np.repeat(denominators, piece.number)).astype(np.float32)
