"""Bright regions and the peaks that they make, against brute force over whole stacks and against known places."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from tds2el._core import PeakFinder, link_runs
from tds2el.peaks.regions import SUMS, Found, Limits, Regions, follows, peaks_of

WINDOW = 11
# Neighbours in a frame, corners included, and the same pixel in the frames before and after.
STRUCTURE = np.zeros((3, 3, 3), dtype=bool)
STRUCTURE[1], STRUCTURE[:, 1, 1] = True, True


@dataclass
class Options:
    """As PeakFinder takes them."""

    threshold: float = np.nan
    sigma: float = 6.0
    saturated_above: float = np.inf
    saturated_from: float = np.inf
    window: int = WINDOW
    most: int = 10_000


def regions_of(stack: Any, mask: Any, options: Options, x: Any, threads: int = 1) -> Regions:
    """The regions of all frames of a stack, linked as a search on one rank does."""
    finder = PeakFinder(mask=mask, threads=threads, **vars(options))
    numbers, _, sums, runs, faults = finder.frames(list(stack))
    assert not faults
    start = np.cumsum([0, *numbers])
    linked = [
        link_runs(runs[n], runs[n + 1]) + start[n : n + 2] for n in np.flatnonzero(follows(np.asarray(x, dtype=float)))
    ]
    links = np.concatenate([np.empty((0, 2), dtype=np.int64), *linked])
    return Regions(np.repeat(np.arange(len(stack)), numbers), np.concatenate(sums), links)


def find(
    stack: Any,
    mask: Any = None,
    x: Any = None,
    denominator: Any = None,
    fewest: int = 1,
    most: int = 10_000,
    **options: Any,
) -> Found:
    mask = np.ones(stack.shape[1:], dtype=bool) if mask is None else mask
    x = np.arange(len(stack), dtype=float) if x is None else x
    regions = regions_of(stack, mask, Options(**options), x)
    return peaks_of(regions, x, np.ones(len(stack)) if denominator is None else denominator, Limits(fewest, most))


def background(image: Any, good: Any) -> Any:
    """Mean of the good pixels of the window that did not stand out of the mean before, three times over."""
    used = good.copy()
    for last in (False, False, False, True):
        total = np.rint(ndimage.uniform_filter(np.where(used, image, 0.0), WINDOW, mode="constant") * WINDOW**2)
        number = np.rint(ndimage.uniform_filter(used.astype(float), WINDOW, mode="constant") * WINDOW**2)
        mean = total / np.maximum(number, 1)
        assert last is False or number.min() >= 10
        if not last:
            used = good & (image - mean <= 3 * np.sqrt(np.maximum(mean, 1)))
    return mean


def stack_of(rng: Any, frames: int = 12, shape: tuple[int, int] = (60, 47)) -> tuple[Any, Any]:
    """Noise on a slope, with blobs of all sizes that pass in some frames, gaps and bad pixels."""
    n, r, c = np.indices((frames, *shape))
    mean = 0.5 + 4 * r / shape[0]
    for _ in range(60):
        at = rng.uniform([0, 0, 0], [frames, *shape])
        width = rng.uniform(0.4, 1.6, 3)
        mean = mean + 10 ** rng.uniform(1, 3.5) * np.exp(
            -sum((v - a) ** 2 / (2 * w**2) for v, a, w in zip((n, r, c), at, width, strict=True))
        )
    stack = rng.poisson(mean).astype(np.int32)
    stack[:, 25:28] = -1
    mask = rng.random(shape) > 0.02
    return stack, mask


@pytest.mark.parametrize("options", [{}, {"sigma": 4.0}, {"threshold": 25.0}])
def test_against_labels_of_the_whole_stack(options: dict[str, float]) -> None:
    stack, mask = stack_of(np.random.default_rng(4))
    good = mask & (stack >= 0)
    mean = np.array([background(image, ok) for image, ok in zip(stack, good, strict=True)])
    above = stack - mean
    sigma = options.get("sigma", 6.0)
    bright = good & (above > 0) & (above > sigma * np.sqrt(np.maximum(mean, 1)))
    if "threshold" in options:
        bright = good & (above > 0) & (stack > options["threshold"])
    labels, n = ndimage.label(bright, STRUCTURE)
    found = find(stack, mask, saturated_from=1500, **options).maxima
    assert len(found.row) == n > 25
    # In the order of their first pixels, as labels are.
    of = np.arange(1, n + 1)
    frame, row, column = np.array(ndimage.center_of_mass(np.where(bright, above, 0), labels, of)).T
    np.testing.assert_allclose(found.frame, frame, atol=1e-5)
    np.testing.assert_allclose(found.row, row, atol=1e-5)
    np.testing.assert_allclose(found.column, column, atol=1e-5)
    np.testing.assert_allclose(found.counts, ndimage.sum(above, labels, of), rtol=1e-5)
    np.testing.assert_array_equal(found.pixels, ndimage.sum(bright, labels, of))
    np.testing.assert_array_equal(found.largest, ndimage.maximum(stack, labels, of))
    np.testing.assert_array_equal(found.saturated, ndimage.maximum(stack, labels, of) >= 1500)
    np.testing.assert_allclose(found.background, ndimage.mean(mean, labels, of), rtol=1e-5)
    assert found.saturated.any()
    assert not found.hkl.any()
    assert not found.accepted.any()


def test_counting_errors_against_their_definition() -> None:
    """Of one peak wide enough for sampling not to matter; the error of the background is that of its mean."""
    n, r, c = np.indices((9, 31, 31))
    width = 2 * 1.4**2
    mean = 2 + 400 * np.exp(-((n - 4.2) ** 2 + (r - 15.3) ** 2 + (c - 14.6) ** 2) / width)
    stack = np.random.default_rng(1).poisson(mean).astype(np.int32)
    stack[0] = stack[-1] = 2  # so that it ends within the scan
    found = find(stack, fewest=50)
    (peak,) = range(len(found.maxima.row))
    assert found.cut == 0
    good = np.ones(stack.shape[1:], dtype=bool)
    base = np.array([background(image, good) for image in stack])
    bright = stack - base > 6 * np.sqrt(np.maximum(base, 1))
    labels, _ = ndimage.label(bright, STRUCTURE)
    inside = labels == labels[4, 15, 15]
    net = np.where(inside, stack - base, 0)
    for x, name in ((r, "row"), (c, "column"), (n, "angle_index")):
        centre = (net * x).sum() / net.sum()
        counted = np.sqrt((np.where(inside, stack, 0) * (x - centre) ** 2).sum()) / net.sum()
        assert getattr(found.maxima, name)[peak] == pytest.approx(centre, abs=1e-5)
        assert getattr(found.maxima, f"{name}_error")[peak] == pytest.approx(counted, rel=1e-3)
    assert found.maxima.counts_error[peak] == pytest.approx(np.sqrt(stack[inside].sum()), rel=0.02)
    assert found.maxima.counts_error[peak] > np.sqrt(stack[inside].sum())


@pytest.mark.parametrize("width", [0.25, 0.6, 1.2])
def test_errors_are_what_centroids_miss_by(width: float) -> None:
    """Peaks of known places, narrow and wide against pixels and frames: pulls have a width near one."""
    rng = np.random.default_rng(int(100 * width))
    side, frames, n = 24, 11, 150
    pulls = []
    edges = [np.arange(k + 1) - 0.5 for k in (frames, side, side)]
    for _ in range(n):
        at = np.array([5, 12, 12]) + rng.uniform(-0.5, 0.5, 3)
        share = [np.diff(normal((e - a) / width)) for e, a in zip(edges, at, strict=True)]
        mean = 1 + 3e4 * share[0][:, None, None] * share[1][:, None] * share[2]
        found = find(rng.poisson(mean).astype(np.int32), fewest=3 if width > 0.3 else 1).maxima
        best = int(np.argmax(found.counts))
        pulls.append(
            [
                (found.angle_index[best] - at[0]) / found.angle_index_error[best],
                (found.row[best] - at[1]) / found.row_error[best],
                (found.column[best] - at[2]) / found.column_error[best],
            ]
        )
    rms = np.sqrt(np.mean(np.square(pulls), axis=0))
    assert np.all((rms > 0.2) & (rms < 1.5)), rms
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.3


def normal(x: Any) -> Any:
    from scipy.special import ndtr

    return ndtr(x)


def spot(frames: int = 5, **counts: int) -> Any:
    """Nothing but a spot of 3 × 3 pixels of some counts in some frames."""
    stack = np.zeros((frames, 20, 20), dtype=np.int32)
    for name, value in counts.items():
        stack[int(name[1:]), 9:12, 9:12] = value
    return stack


def test_a_peak_in_a_single_frame_is_somewhere_in_it() -> None:
    found = find(spot(f2=50)).maxima
    assert found.angle_index[0] == found.frame[0] == 2
    assert found.angle_index_error[0] == pytest.approx(np.sqrt(1 / 12), rel=1e-6)


def test_a_fading_beam_does_not_shift_a_peak() -> None:
    denominator = np.array([1.0, 1.2, 0.9, 0.6, 1.0])
    found = find(spot(f1=120, f2=90, f3=60), denominator=denominator).maxima
    assert found.angle_index[0] == pytest.approx(2, abs=1e-6)
    assert found.counts[0] == pytest.approx(9 * 270)
    assert find(spot(f1=120, f2=90, f3=60)).maxima.angle_index[0] < 1.9


def test_missing_frames_end_a_peak() -> None:
    x = np.array([0.0, 1, 2, 5, 6])
    found = find(spot(f2=60, f3=60), x=x)
    np.testing.assert_allclose(found.maxima.angle_index, [2, 5])
    assert found.cut == 2
    assert len(find(spot(f2=60, f3=60)).maxima.row) == 1


def test_what_a_gap_cuts_off_has_a_larger_error() -> None:
    stack = spot(f2=200)
    whole = find(stack).maxima
    mask = np.ones((20, 20), dtype=bool)
    mask[:, 11] = False
    found = find(stack, mask)
    assert found.cut == 1
    assert found.maxima.column[0] == 9.5
    assert found.maxima.column_error[0] > whole.column_error[0] + 0.3
    assert abs(found.maxima.column[0] - whole.column[0]) < found.maxima.column_error[0]
    stack[:, :, 11] = -1  # the same said by the counts
    again = find(stack)
    assert again.cut == 1
    assert again.maxima.column_error[0] == found.maxima.column_error[0]


def test_a_saturated_peak_keeps_its_centroid_and_says_so() -> None:
    r, c = np.indices((30, 30))
    bright = 5e5 * np.exp(-((r - 15.4) ** 2 + (c - 13.8) ** 2) / (2 * 1.5**2))
    stack = np.stack([np.zeros_like(bright), bright, np.zeros_like(bright)])
    clipped = np.minimum(stack, 5e4).astype(np.int32)
    found = find(clipped, saturated_from=5e4).maxima
    assert found.saturated.tolist() == [True]
    assert abs(found.row[0] - 15.4) < found.row_error[0] < 0.3
    assert abs(found.column[0] - 13.8) < found.column_error[0] < 0.3
    assert not find(stack.astype(np.int32), saturated_above=5e5).maxima.saturated.any()


def test_limits_of_size() -> None:
    stack = spot(f1=50, f2=50)
    stack[3, 2, 2] = 50
    stack[4, 15, :] = 50
    assert [len(find(stack, fewest=a, most=b).maxima.row) for a, b in ((1, 100), (2, 100), (1, 18), (19, 19))] == [
        3,
        2,
        2,
        0,
    ]
    found = find(stack, fewest=2, most=18)
    assert (found.small, found.large) == (1, 1)


def test_too_many_regions_are_only_counted() -> None:
    stack = np.zeros((1, 40, 40), dtype=np.int32)
    stack[0, ::2, ::2] = 50
    finder = PeakFinder(mask=np.ones((40, 40), dtype=bool), **vars(Options(threshold=20, most=300)))
    numbers, _, sums, runs, _ = finder.frames([stack[0]])
    assert numbers.tolist() == [400]
    assert sums[0].shape == (0, len(SUMS))
    assert runs[0].shape == (0, 4)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int16, np.float32, np.float64])
def test_any_type_of_counts(dtype: Any) -> None:
    stack, mask = stack_of(np.random.default_rng(9), frames=3)
    stack = np.maximum(stack, 0)
    one, other = find(stack, mask).maxima, find(stack.astype(dtype), mask).maxima
    for name, values in vars(one).items():
        np.testing.assert_array_equal(getattr(other, name), values)


def test_not_a_number_is_no_data() -> None:
    stack = spot(f2=100).astype(np.float32)
    stack[2, 9, :] = np.nan
    found = find(stack)
    assert found.cut == 1
    assert found.maxima.pixels.tolist() == [6]


def test_any_number_of_threads_gives_the_same() -> None:
    stack, mask = stack_of(np.random.default_rng(5), frames=30)
    x = np.arange(30.0)
    one, many = (regions_of(stack, mask, Options(), x, threads) for threads in (1, 5))
    assert one.sums.tobytes() == many.sums.tobytes()
    np.testing.assert_array_equal(one.links, many.links)


def test_bad_arguments() -> None:
    mask = np.ones((5, 5), dtype=bool)
    with pytest.raises(ValueError, match="differ in shape"):
        PeakFinder(mask=mask, **vars(Options())).frames([np.zeros((4, 5), dtype=np.int32)])
    with pytest.raises(ValueError, match="window"):
        PeakFinder(mask=mask, **vars(Options(window=1)))
    with pytest.raises(ValueError, match="differ in shape"):
        PeakFinder(mask=mask, **vars(Options())).set_mask(mask[1:])
    with pytest.raises(ValueError, match="runs of 4"):
        link_runs(np.zeros((3, 3), dtype=np.int32), np.zeros((3, 4), dtype=np.int32))


def test_a_frame_without_any_good_pixel() -> None:
    found = find(spot(f2=100), mask=np.zeros((20, 20), dtype=bool))
    assert SimpleNamespace(**vars(found.maxima)).row.size == 0
