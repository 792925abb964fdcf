"""The series of detector frames: which files, in which order, at which angle, and their counts."""

import contextlib
import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.experiment import angles, headers, images
from tds2el.experiment.headers import Headers
from tds2el.parallel import World
from tds2el.settings import FrameSettings

Source = str | images.Chunk | npt.NDArray[Any]
"""What compiled code takes for a frame: the path of a CBF, a packed frame of an Eiger file, an image."""
Take = Callable[[Sequence[int], Sequence[Source]], list[tuple[int, str]]]


@dataclass(eq=False)
class FrameSeries:
    """Frames n = 0, 1, … of one scan.

    Attributes
    ----------
    names : one per frame: the file's name with path, ``file::i`` for frame i = 0, 1, … of a multi-frame file
    shape : (rows, columns)
    dtype : type of the counts as stored
    angle_index : (n_frames,) x such that phi_n = phi + x·angular_step
    count_cutoff : lowest count from which the headers call a pixel saturated, or None
    pixel_mask : (rows, columns) True = good, from the files themselves (Eiger), or None
    files : names of the files
    option : which option found them, for messages
    """

    names: list[str]
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    angle_index: npt.NDArray[np.float64]
    count_cutoff: float | None
    pixel_mask: npt.NDArray[np.bool_] | None
    files: list[str]
    _frames_in_file: npt.NDArray[np.int64]
    option: str = "images_prefix"
    _open: images.ImageFile | None = field(default=None, repr=False)
    _compiled: bool = field(default=True, repr=False)  # until a frame turns out to be of a kind that only fabio reads

    def __post_init__(self) -> None:
        self._ends = np.cumsum(self._frames_in_file)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.names)

    def read(self, n: int) -> npt.NDArray[Any]:
        """Counts of frame ``n`` as stored, (rows, columns), in native byte order.

        No data are: negative counts (gaps −1, bad pixels −2 of a Pilatus), NaN in a float frame, and what
        ``pixel_mask`` excludes. A pixel that ``pixel_mask`` keeps and that has the largest value of its unsigned
        type (Eiger) is saturated.

        Raises
        ------
        InputError
            Names the frame, which has vanished, is truncated or damaged, or is not shaped like frame 0.
        """
        i = int(np.searchsorted(self._ends, n, side="right"))
        in_file = int(self._frames_in_file[i])
        if in_file == 1:
            data = images.read_image(self.files[i])
        else:
            data = self._open_file(self.files[i], in_file).frame(n - int(self._ends[i]) + in_file)
        if data.shape != self.shape:
            raise InputError(
                f"{self.names[n]}: shape {data.shape[0]}×{data.shape[1]}, but that of the first frame is "
                f"{self.shape[0]}×{self.shape[1]}; remove the frame or correct {self.option}"
            )
        return data

    def sources(self, frames: npt.NDArray[np.int64]) -> list[str | images.Chunk | None]:
        """Where compiled code finds frames: the path of a CBF, or the chunk of an Eiger file; None: use `read`.

        Whether a CBF is of the usual kind shows when it is read.

        Raises
        ------
        InputError
            A multi-frame file cannot be opened, or has changed.
        """
        found: list[str | images.Chunk | None] = []
        of_file = np.searchsorted(self._ends, frames, side="right")
        in_file = self._frames_in_file[of_file]
        index = frames - self._ends[of_file] + in_file
        for file, n, i in zip(of_file.tolist(), in_file.tolist(), index.tolist(), strict=True):
            path = self.files[file]
            if n > 1:
                found.append(self._open_file(path, n).chunk(i, self.shape))
            else:
                found.append(path if path.lower().endswith(".cbf") else None)
        return found

    def feed(self, frames: Sequence[int], take: Take) -> None:
        """Give frames to compiled code: all at once if it can read them itself, else one at a time as images.

        Parameters
        ----------
        frames : indices of the frames
        take : called with indices and as many sources; returns what is wrong: position among them and why, "" for a
            file that compiled code cannot read

        Raises
        ------
        InputError
            Names the frame that has vanished, is truncated or damaged, or of another shape.
        """
        sources = self.sources(np.array(frames)) if self._compiled else [None]
        known = [source for source in sources if source is not None]
        if len(known) == len(frames):
            faults = take(frames, known)
            if not faults:
                return
            position, reason = faults[0]
            frame = frames[position]
            if reason:
                raise images.damaged(self.names[frame], reason)
            self.read(frame)  # which says what is wrong, if anything is
            self._compiled = False
        for n in frames:
            take([n], [np.ascontiguousarray(self.read(n))])

    def check_md5(self, n: int) -> None:
        """Raise InputError if frame ``n`` is a CBF whose checksum says that it is damaged."""
        i = int(np.searchsorted(self._ends, n, side="right"))
        if self._frames_in_file[i] == 1:
            images.check_md5(self.files[i])

    def _open_file(self, path: str, n_frames: int) -> images.ImageFile:
        """The multi-frame file, kept open from one frame to the next."""
        if self._open is None or self._open.path != path:
            self.close()
            opened = images.ImageFile(path)
            if opened.n_frames != n_frames:
                opened.close()
                raise InputError(f"{path}: has {opened.n_frames} frames, but had {n_frames} at the start of the run")
            self._open = opened
        return self._open

    def close(self) -> None:
        """Close the multi-frame file that is open, if one is."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def open_frame_series(frames: FrameSettings, angular_step: float, scanned: Headers | None = None) -> FrameSeries:
    """Find the frames, read all their headers, and work out the rotation angle of each.

    Frames are ``sorted(glob(images_prefix + "*" + images_postfix))``; with ``frame_angle = "number"`` they are
    put in the order of their numbers.

    Parameters
    ----------
    angular_step : degrees per frame; its sign may differ from that in the headers
    scanned : what `scan_files` found in all files of `frame_files`, if they have been looked at already

    Raises
    ------
    InputError
        No file found; a file that cannot be read. Without ``frame_angle``: numbers in the names that are not
        contiguous or not in name order, header angles that do not advance by |angular_step| within a tenth.
        With it: frames that have no number or header angle, or whose header angles do not go one way.
    """
    found = scan_files(frame_files(frames)) if scanned is None else scanned
    _check_found(found, frames.images_prefix, frames.images_postfix)
    if frames.frame_angle == "number":
        return _series(*_by_number(found, frames))
    if frames.frame_angle is None:
        numbers = angles.frame_numbers(found.files, frames.images_prefix, frames.images_postfix)
        angles.check_numbers(found.files, numbers)
    scan, names = angles.scan_angles(found), frame_names(found)
    if frames.frame_angle == "header":
        return _series(found, angles.index_from_header(names, scan, angular_step))
    angles.check_angles(names, scan, angular_step)
    return _series(found, np.arange(len(names), dtype=np.float64))


def in_order(found: Headers, frames: FrameSettings) -> Headers:
    """The files in the order of the scan, as far as their names tell it.

    Raises
    ------
    InputError
        No file found; with ``frame_angle = "number"``, a name without a number, or with that of another.
    """
    _check_found(found, frames.images_prefix, frames.images_postfix)
    return _by_number(found, frames)[0] if frames.frame_angle == "number" else found


def _by_number(found: Headers, frames: FrameSettings) -> tuple[Headers, npt.NDArray[np.float64]]:
    """The files in the order of their numbers, and these less the first."""
    if np.any(found.n_frames > 1):
        stack = found.files[int(np.argmax(found.n_frames))]
        raise InputError(f'{stack}: frame_angle = "number" needs one frame per file; use "header"')
    numbers = angles.frame_numbers(found.files, frames.images_prefix, frames.images_postfix)
    files, x = angles.order_by_number(found.files, numbers)
    return replace(found, files=files), x


def open_unturned_series(found: Headers) -> FrameSeries:
    """Frames in the order of these files, whatever their angles; InputError if the first cannot be read."""
    return _series(found, np.arange(found.n_frames.sum(), dtype=np.float64))


def open_still_series(prefix: str, postfix: str, option: str) -> FrameSeries:
    """Frames whose angles do not matter: any number in any order, as they are found.

    Parameters
    ----------
    prefix, postfix : str
    option : str
        The option that gave the prefix, for messages.

    Raises
    ------
    InputError
        No file found; a file that cannot be read.
    """
    found = scan_files(_find_files(prefix, postfix))
    _check_found(found, prefix, postfix, option)
    return _series(found, np.arange(found.n_frames.sum(), dtype=np.float64), option)


def frame_names(found: Headers) -> list[str]:
    """The name of every frame: that of its file, ``file::i`` for frame i of several."""
    if np.all(found.n_frames == 1):
        return found.files
    pairs = zip(found.files, found.n_frames.tolist(), strict=True)
    return [file if n == 1 else f"{file}::{i}" for file, n in pairs for i in range(n)]


def _series(found: Headers, angle_index: npt.NDArray[np.float64], option: str = "images_prefix") -> FrameSeries:
    mask, first = found.pixel_mask, _first_frame(found.files[0], int(found.n_frames[0]))
    if mask is not None and mask.shape != first.shape:
        raise InputError(f"{found.files[0]}: its pixel_mask has the shape {mask.shape}, its frames {first.shape}")
    return FrameSeries(
        names=frame_names(found),
        shape=(first.shape[0], first.shape[1]),
        dtype=first.dtype,
        angle_index=angle_index,
        count_cutoff=found.count_cutoff,
        pixel_mask=mask,
        files=found.files,
        _frames_in_file=found.n_frames,
        option=option,
    )


def _find_files(prefix: str, postfix: str) -> list[str]:
    # The second try is for folders with [ ] in their names.
    pattern = f"{prefix}*{postfix}"
    return sorted(glob.glob(pattern) or glob.glob(f"{glob.escape(prefix)}*{glob.escape(postfix)}"))


def _check_found(found: Headers, prefix: str, postfix: str, option: str = "images_prefix") -> None:
    if not found.files:
        postfix_option = option.replace("_prefix", "_postfix")
        raise InputError(f"no file matches {prefix}*{postfix}; check {option} and {postfix_option}")


def frame_files(frames: FrameSettings) -> list[str]:
    """The files of a series, and folders of such names if there are any, in the order of their names."""
    return _find_files(frames.images_prefix, frames.images_postfix)


def scan_files(files: Sequence[str], threads: int = 1) -> Headers:
    """Number of frames and header of each file, as cheaply as possible; folders are left out.

    Raises
    ------
    InputError
        A file that cannot be read, or whose end or data files are missing.
    """
    numbers, heads = images.file_heads(files, threads)
    parts: list[Headers] = []
    begin = 0  # of the files that are not in the parts yet
    single = False  # one frame in the first file that is neither CBF nor HDF5: one in all, checked when read
    for i, head in heads.items():
        several: list[Headers] = []
        if head is not None:
            if images.is_cbf(files[i], head) or (single and not images.is_hdf5(head)):
                continue
            several = _several_frames(files[i], head)
            if not several:
                single = True
                continue
        parts += [headers.single_frames(files[begin:i], numbers[begin:i]), *several]
        begin = i + 1
    return headers.joined([*parts, headers.single_frames(files[begin:], numbers[begin:])])


def scan_together(find: Callable[[], list[str]], threads: int, world: World) -> Headers:
    """What `scan_files` says of all the files that `find` finds, each looked at by one rank (collective).

    One rank lists the folder: if many do at once they wait for each other, and what they see may differ.

    Raises
    ------
    InputError
        On all ranks alike, whatever is wrong on one of them.
    """
    files = world.gather_all(world.attempt(lambda: find() if world.rank == 0 else []))[0]
    share = np.array_split(np.arange(len(files)), world.size)[world.rank]
    own = world.attempt(lambda: scan_files([files[i] for i in share], threads))
    return world.attempt(partial(headers.joined, world.gather_all(own)))


def _several_frames(path: str, head: bytes) -> list[Headers]:
    """Headers of an HDF5 file or of another of several frames; none of one of a single frame."""
    from tds2el._core import header_numbers

    if images.is_hdf5(head):
        headers.check_hdf5_links(path)
        with contextlib.closing(images.ImageFile(path)) as image:
            n = image.n_frames
        return [headers.hdf5_header(path, n)]
    with contextlib.closing(images.ImageFile(path)) as image:
        if image.n_frames == 1:
            return []
        numbers = [header_numbers(image.header(i).encode()) for i in range(image.n_frames)]
    return [headers.stack(headers.single_frames([path] * len(numbers), np.array(numbers)))]


def _first_frame(path: str, n_frames: int) -> npt.NDArray[Any]:
    if n_frames == 1:
        return images.read_image(path)
    with contextlib.closing(images.ImageFile(path)) as image:
        return image.frame(0)
