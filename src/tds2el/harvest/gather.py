"""Gathering the points of one rank's frames, a block of frames at a time, on the rank's threads."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.experiment.images import Chunk, damaged
from tds2el.harvest.assemble import PointList
from tds2el.harvest.file import LOSSES
from tds2el.harvest.inputs import Inputs

IntArray = npt.NDArray[np.int64]
# What the compiled gatherer takes: the path of a CBF, a packed frame of an Eiger file, an image.
Source = str | Chunk | npt.NDArray[Any]


class FrameGatherer:
    """Reads frames and keeps what it finds, in the order of frames whatever the number of threads.

    CBFs and the packed frames of Eiger files are read and decoded in compiled code, and only where a region wants
    their pixels; frames of any other kind come through fabio, one at a time.

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
        self._packed = True  # until a frame turns out to be of a kind that only fabio reads
        self.frames, first = np.unique(plan.frame, return_index=True)
        self._first = np.append(first, plan.frame.size)
        n_blobs = len(plan.node)
        self.points, self.peaks = PointList(inputs.background is not None), PointList()
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
            if not self._read_packed(members):
                for i in members:
                    self._gather([i], [self._inputs.series.read(int(self.frames[i]))])

    def _read_packed(self, members: list[int]) -> bool:
        """Read frames in compiled code; False if that cannot read all of them."""
        series = self._inputs.series
        sources = [series.source(int(self.frames[i])) for i in members] if self._packed else [None]
        known = [source for source in sources if source is not None]
        if len(known) < len(members):
            return False
        faults = self._gather(members, known)
        if not faults:
            return True
        position, reason = faults[0]
        frame = int(self.frames[members[position]])
        if reason:
            raise damaged(series.names[frame], reason)
        series.read(frame)  # which says what is wrong, if anything is
        self._packed = False
        return False

    def _gather(self, members: list[int], sources: Sequence[Source]) -> list[tuple[int, str]]:
        """Add what is found in successive frames, or return what is wrong with them."""
        inputs, frames = self._inputs, self.frames[members]
        visits = slice(self._first[members[0]], self._first[members[-1] + 1])
        number = np.diff(self._first[members[0] : members[-1] + 2])
        blobs, denominators = inputs.plan.blob[visits], inputs.denominator[frames]
        turns = [inputs.geometry.lab_to_crystal(inputs.geometry.phi(x)) for x in inputs.series.angle_index[frames]]
        points, peaks, lost, hot, faults = self._gatherer.frames(
            sources, np.array(turns), np.cumsum(number), blobs, inputs.plan.region[visits], denominators
        )
        if faults:
            return faults
        columns: tuple[npt.NDArray[Any], ...] = points
        if inputs.background is not None:
            n, row, column, *_ = points
            rate = inputs.background.rate[row, column]
            columns = (*points, rate * np.repeat(np.repeat(denominators, number), n))
        frame_of_visit = np.repeat(frames, number)
        self.points.add(frame_of_visit, blobs, columns)
        self.peaks.add(frame_of_visit, blobs, peaks)
        np.add.at(self.lost, blobs, lost)
        np.add.at(self.hot_frames, blobs, hot)
        return []
