"""Volumes against brute force over all pixels, and against what a simulated crystal must look like."""

import h5py
import numpy as np
import pytest
from fabio.edfimage import EdfImage

from tds2el.crystal.cell import Cell
from tds2el.crystal.symmetry import point_group
from tds2el.errors import InputError
from tds2el.parallel import World
from tds2el.settings import load_settings
from tds2el.volume.file import VolumeFile
from tds2el.volume.reconstruct import reconstruct

from .conftest import EXPERIMENT, Scan

TILTED = {
    "volume_basis": [[1, 1, 0], [1, -1, 0.5], [0, 0, 1]],
    "volume_origin": [0.2, -0.1, 0.3],
    "volume_limits": [[-2, 2], [-3, 3], [-0.6, 0.6]],
}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"volume_axes": "cartesian"},
        {"volume_axes": "cartesian", "volume_limits": [[-0.5, 0.2], [-0.1, 0.6], [0.0, 0.9]], "microsteps": 2},
        {"microsteps": 3},
        TILTED,
        TILTED | {"volume_shape": (40, 40, 1)},
        {"every_nth_frame": 7},
    ],
)
def test_equals_brute_force(scan, options):
    rng = np.random.default_rng(1)
    scan.ranges = [(4, 12, rng.random(scan.mask.shape) > 0.4), (9, 20, rng.random(scan.mask.shape) > 0.2)]
    with scan.run(**options) as volume:
        every = options.get("every_nth_frame", 1)
        scan.check(volume, options.get("microsteps", 1), range(0, scan.n_frames, every))


def test_rays_enter_a_thick_sensor_before_they_are_counted(make_scan):
    scan = make_scan(sensor_thickness=4.0, sensor_mu=0.5)
    with scan.run() as volume:
        scan.check(volume)
        thin = make_scan()
        with pytest.raises(AssertionError):
            thin.check(volume)


def test_sweeps_share_a_volume(tmp_path):
    """Another detector position and goniometer setting, other frames, their own mask and denominators."""
    scans = []
    for name, setting in (("one", {}), ("two", {"omega": 91.0, "theta": -20.0, "angular_step": -0.6})):
        (tmp_path / name).mkdir()
        scan = Scan(tmp_path / name, EXPERIMENT | setting, n_frames=20 if setting else 30)
        scan.write()
        scans.append(scan)
    (tmp_path / "input.par").write_text("sweeps = ['one/conf.par', 'two/conf.par']\n")
    with VolumeFile(reconstruct(load_settings(tmp_path / "input.par"), World())) as volume:
        expected = sum(scan.brute(volume.grid) for scan in scans)
        np.testing.assert_allclose(volume.counts[()], expected[0], rtol=1e-14, atol=1e-12)
        np.testing.assert_allclose(volume.correction[()], expected[1], rtol=1e-9, atol=1e-12)
        assert expected[2].sum() == sum(sum(scan.good(n).sum() for n in range(scan.n_frames)) for scan in scans)


@pytest.mark.parametrize("axes", ["hkl", "cartesian"])
def test_by_default_no_count_is_lost(scan, axes):
    """All that the detector reaches lies in the grid; and its edges are not far beyond."""
    with scan.run(volume_axes=axes, microsteps=4) as volume:
        good = np.array([scan.good(n) for n in range(scan.n_frames)])
        assert volume.counts[()].sum() == pytest.approx(scan.images[good].sum(), rel=1e-14)
        assert volume.pixels[()].sum() == pytest.approx(good.sum(), rel=1e-6)
        farthest = max(np.abs(scan.places(n, kind=axes)).max() for n in range(scan.n_frames))
        edge = volume.grid.limits[:, 1].max()
        assert farthest < edge < farthest + (1.1 if axes == "hkl" else 0.11)
        np.testing.assert_array_equal(volume.grid.limits[:, 0], -volume.grid.limits[:, 1])


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        for group in ("volume", "sums", "grid", "frames"):
            for name, item in file["entry"][group].items():
                found[f"{group}/{name}"] = item[()]
    return found


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, np.ndarray) and value.dtype != object:
            assert value.tobytes() == other[name].tobytes(), name
        else:
            assert np.all(value == other[name]), name


def write_background(scan, mean=30.0, n_frames=2):
    """Frames without the crystal; their sum."""
    from fabio.cbfimage import CbfImage

    rng = np.random.default_rng(9)
    counts = rng.poisson(mean, (n_frames, *scan.mask.shape)).astype(np.int32)
    for n, image in enumerate(counts):
        CbfImage(data=image).write(str(scan.folder / f"empty_{n}.cbf"))
    (scan.folder / "empty.txt").write_text("".join(f"empty_{n}.cbf 1.5\n" for n in range(n_frames)))
    return counts.sum(axis=0)


BACKGROUND = {
    "background_prefix": "empty_",
    "background_postfix": ".cbf",
    "background_normalisation_file": "empty.txt",
}


def test_the_same_for_any_number_of_threads_and_passes(scan):
    write_background(scan)
    scan.ranges = [(4, 12, np.random.default_rng(1).random(scan.mask.shape) > 0.4)]
    results = []
    # 8 bytes × 5 sums × 31 × 27 voxels are 33 kB a layer: 23 layers, then 4 at a time.
    for further in ({"threads": 1}, {"threads": 2}, {"threads": 5}, {"volume_memory": 0.14e-3}):
        scan.run(microsteps=2, **BACKGROUND, **further).close()
        results.append(datasets(scan.path))
    one = results[0]
    assert np.count_nonzero(one["sums/pixels"]) > 1000
    assert_same(one, results[1])
    assert_same(one, results[2])
    # The last digit of a variance is rounded by the largest voxel of a pass.
    np.testing.assert_allclose(results[3]["sums/background_variance"], one["sums/background_variance"], rtol=1e-6)
    np.testing.assert_allclose(results[3]["volume/intensity_errors"], one["volume/intensity_errors"], rtol=1e-6)
    for name in ("sums/background_variance", "volume/intensity_errors"):
        results[3][name] = one[name]
    assert_same(one, results[3])


def test_a_layer_that_does_not_fit(scan):
    with pytest.raises(InputError, match=r"volume_memory: 1e-05 GB, but one layer of the volume takes 2e-05 GB"):
        scan.run(volume_memory=1e-5)
    with pytest.raises(InputError, match=r"with volume_symmetrise the volume takes"):
        scan.run(volume_memory=1e-4, volume_symmetrise=1, ascii_generators="1~")
    assert not scan.path.exists()


def test_frames_that_are_no_whole_numbers(scan):
    """They come through fabio; NaN is no data."""
    scan.write()
    rng = np.random.default_rng(3)
    images = rng.normal(5.0, 1.0, scan.images.shape).astype(np.float32)
    images[scan.images < 0] = np.nan
    for n, image in enumerate(images):
        EdfImage(data=image).write(str(scan.folder / f"float_{n:04d}.edf"))
    good = np.array([scan.good(n) for n in range(scan.n_frames)]) & (np.nan_to_num(images, nan=-1) >= 0)
    with scan.run(images_prefix="float_", images_postfix=".edf", normalisation_file=None) as volume:
        assert volume.counts[()].sum() == pytest.approx(images[good].sum(dtype=float), rel=1e-7)
        assert volume.pixels[()].sum() == good.sum()


def test_the_largest_value_of_an_unsigned_type_is_no_data(scan):
    scan.write()
    for n, image in enumerate(scan.images):
        EdfImage(data=np.where(image < 0, 65535, image).astype(np.uint16)).write(str(scan.folder / f"u_{n:04d}.edf"))
    with scan.run(images_prefix="u_", images_postfix=".edf", normalisation_file=None) as volume:
        scan.denominator[:] = 1
        scan.check(volume)


def test_saturated_pixels_are_kept_and_told(scan, caplog):
    with scan.run(threshold=400) as volume:
        scan.check(volume)
    above = sum(int(np.count_nonzero(scan.images[n][scan.good(n)] > 400)) for n in range(scan.n_frames))
    assert above > 20
    assert f"{above} pixels are saturated: the intensity of their voxels is too low" in caplog.text


def test_a_flat_field_of_few_counts(make_scan):
    scan = make_scan()
    rng = np.random.default_rng(2)
    truth = 0.05
    scan.images = rng.poisson(truth * scan.kappa * scan.denominator[:, None, None]).astype(np.int32)
    with scan.run(volume_shape=(9, 9, 9)) as volume:
        pixels, intensity = volume.pixels[()], volume.intensity[()]
        pulls = ((intensity - truth) / volume.intensity_errors[()])[truth * pixels > 20]
        counts, correction = volume.counts[()].sum(), volume.correction[()].sum()
    assert counts / correction == pytest.approx(truth, abs=4 * np.sqrt(counts) / correction)
    assert pulls.size > 40
    assert abs(pulls.mean()) < 4 / np.sqrt(pulls.size) + 0.1  # √N of few counts is skew
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pulls.size))


def background_of(scan, grid, summed, exposure):
    """ΣB and its variance of every voxel: pixel by pixel, with its weight of all frames together."""
    expected, variance = np.zeros(grid.shape), np.zeros(grid.shape)
    weights = {}
    for n in range(scan.n_frames):
        node, inside = scan.nodes(grid, scan.places(n))
        chosen = inside & scan.mask
        np.add.at(
            expected,
            tuple(node[chosen & scan.good(n)].T),
            (scan.denominator[n] * summed / exposure)[chosen & scan.good(n)],
        )
        for r, c in np.argwhere(chosen):
            key = (r, c, *node[r, c])
            weights[key] = weights.get(key, 0.0) + scan.denominator[n]
    for (r, c, *node), weight in weights.items():
        variance[tuple(node)] += weight**2 * (summed[r, c] + 1) / exposure**2
    return expected, variance


def test_background(make_scan):
    """It is unbiased with pulls of unit width, although a pixel's estimate enters many frames of one voxel."""
    scan = make_scan(angular_step=0.05)
    scan.images = np.zeros_like(scan.images)  # the brute force below counts no negative pixel twice
    own, other = 3.0, 12.0
    rng = np.random.default_rng(4)
    summed = write_background(scan, mean=1.5 * other)
    counts = scan.kappa * own + other
    scan.images = rng.poisson(counts * scan.denominator[:, None, None]).astype(np.int32)
    with scan.run(volume_shape=21, **BACKGROUND) as volume:
        expected, variance = background_of(scan, volume.grid, summed, 3.0)
        np.testing.assert_allclose(volume.background[()], expected, rtol=1e-9)
        np.testing.assert_allclose(volume.background_variance[()], variance, rtol=1e-6)
        filled = volume.pixels[()] > 20
        error = np.sqrt(volume.counts[()] + variance)[filled] / volume.correction[()][filled]
        np.testing.assert_allclose(volume.intensity_errors[()][filled], error, rtol=1e-6)
        pulls = (volume.intensity[()][filled] - own) / error
    assert pulls.size > 60
    assert (variance[filled] > 3 * expected[filled]).mean() > 0.9  # the background's own noise is most of it
    assert abs(pulls.mean()) < 4 / np.sqrt(pulls.size)
    assert pulls.std() == pytest.approx(1, abs=4 / np.sqrt(2 * pulls.size))


# Symmetry

CUBIC = (6.0, 6.0, 6.0, 90.0, 90.0, 90.0)
MONOCLINIC = (6.1, 7.2, 8.3, 90.0, 95.0, 90.0)
HEXAGONAL = (6.0, 6.0, 9.0, 90.0, 90.0, 120.0)


def images_of(grid, operations, nodes):
    """The numbers of the nodes that operations on hkl take nodes (n, 3) to, (operations, n, 3)."""
    step = np.array([grid.axis(n)[1] - grid.axis(n)[0] for n in range(3)])
    start = np.array([grid.axis(n)[0] for n in range(3)])
    hkl = nodes * step + start
    images = (hkl @ operations.transpose(0, 2, 1) - start) / step
    np.testing.assert_allclose(images, np.rint(images), atol=1e-9)
    return np.rint(images).astype(int)


@pytest.mark.parametrize(
    ("cell", "generators"),
    [(CUBIC, "m-3m"), (CUBIC, "1~,2(z),4(z)"), (HEXAGONAL, "1~,3(z),2(y)"), (MONOCLINIC, "2(y)")],
)
def test_symmetrised_volumes_are_invariant(make_scan, cell, generators):
    scan = make_scan(cell=cell)
    with scan.run(volume_shape=25, volume_symmetrise=1, ascii_generators=generators) as volume:
        assert volume.symmetrised
        group = point_group(generators, Cell(*cell), None)
        np.testing.assert_array_equal(volume.operations, group.hkl_operations)
        nodes = np.indices(volume.grid.shape).reshape(3, -1).T
        intensity, pixels = volume.intensity[()], volume.pixels[()]
        assert np.count_nonzero(pixels) > 1000
        for image in images_of(volume.grid, group.hkl_operations, nodes):
            inside = ((image >= 0) & (image < volume.grid.shape)).all(axis=1)
            assert inside.mean() > 0.5
            there, here = (tuple(x[inside].T) for x in (image, nodes))
            np.testing.assert_array_equal(intensity[there], intensity[here])
            np.testing.assert_array_equal(pixels[there], pixels[here])


@pytest.mark.parametrize("limits", [[[-3, 3]] * 3, [[-1.5, 3], [-2, 1], [-1, 0]]])
@pytest.mark.parametrize(("cell", "generators"), [(CUBIC, "1~,3(111),4(z)"), (HEXAGONAL, "1~,3(z),2(y)")])
def test_symmetrised_equals_reconstructed_then_symmetrised(make_scan, cell, generators, limits):
    """Each voxel is made of all voxels that are equivalent to it, each once, wherever they lie."""
    scan = make_scan(cell=cell)
    shape = tuple(round(4 * (high - low)) + 1 for low, high in limits)
    with scan.run(volume_shape=shape, volume_limits=limits, volume_symmetrise=1, ascii_generators=generators) as volume:
        found = [volume.counts[()], volume.correction[()], volume.pixels[()]]
    all_limits = {"volume_limits": [[-8, 8]] * 3, "volume_shape": 65}  # the same step of a quarter
    group = point_group(generators, Cell(*cell), None)
    with scan.run(**all_limits) as whole:
        sums = [whole.counts[()], whole.correction[()], whole.pixels[()]]
        nodes = np.indices(shape).reshape(3, -1).T + [round(4 * (low + 8)) for low, _ in limits]
        images = images_of(whole.grid, group.hkl_operations, nodes)
    numbers = np.sort(images @ [65 * 65, 65, 1], axis=0)
    new = np.concatenate([np.ones((1, len(nodes)), bool), np.diff(numbers, axis=0) > 0])
    inside = ((images >= 0) & (images < 65)).all(axis=(0, 2))
    assert np.count_nonzero(found[2].reshape(-1)[inside]) > 100
    for have, all_voxels in zip(found, sums, strict=True):
        want = np.where(new, all_voxels.reshape(-1)[np.clip(numbers, 0, 65**3 - 1)], 0).sum(axis=0)
        np.testing.assert_allclose(have.reshape(-1)[inside], want[inside], rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "operation"),
    [
        ({"volume_axes": "cartesian"}, "(-0.5 "),
        ({"volume_shape": 24}, "("),
        ({"volume_limits": [[-2, 2], [-3, 3], [-2, 2]]}, "("),
        ({"volume_limits": [[-2, 2.1], [-2, 2], [-2, 2]]}, "("),
    ],
)
def test_grids_that_the_group_does_not_map(make_scan, options, operation):
    scan = make_scan(cell=HEXAGONAL)
    with pytest.raises(InputError, match="volume_symmetrise = 1: the operation ") as caught:
        scan.run(volume_symmetrise=1, ascii_generators="1~,3(z),2(y)", **options)
    assert operation in str(caught.value)
    assert "does not take the nodes of the grid to nodes" in str(caught.value)


def test_maxima_of_a_crystal_lie_on_its_nodes(make_scan):
    """Peaks of a known width at all nodes: their centroid in the volume is integer hkl, to a tenth of a voxel."""
    scan = make_scan(cell=(3.1, 3.6, 4.2, 88.0, 95.0, 103.0), n_frames=90)
    width = 0.03  # Å⁻¹
    b = np.linalg.inv(scan.a)
    for n in range(scan.n_frames):
        hkl = scan.places(n)
        off = (hkl - np.rint(hkl)) @ b.T
        scan.images[n] = np.rint(
            1e4 * scan.kappa * np.exp(-0.5 * (off**2).sum(axis=-1) / width**2) * scan.denominator[n]
        )
    scan.mask[:] = True
    with scan.run(volume_limits=[[-5, 5]] * 3, volume_shape=81, microsteps=4) as volume:
        intensity, pixels = volume.intensity[()], volume.pixels[()]
        per_node = 8
        checked = 0
        for node in np.argwhere(np.nan_to_num(intensity) > 5000):
            nearest = per_node * np.rint(node / per_node).astype(int)
            box = tuple(slice(i - 3, i + 4) for i in nearest)
            part = intensity[box]
            if part.shape != (7, 7, 7) or np.isnan(part).any():
                continue  # the peak is not covered as a whole
            centre = [(part * np.arange(-3, 4).reshape(np.roll((7, 1, 1), n))).sum() / part.sum() for n in range(3)]
            assert np.abs(centre).max() < 0.1, nearest
            checked += 1
    assert checked > 10
    assert np.count_nonzero(pixels) > 5000


def test_no_pixel_in_the_volume(scan, caplog):
    with scan.run(volume_limits=[[90, 91]] * 3) as volume:
        assert np.isnan(volume.intensity[()]).all()
    assert "no pixel fell into the volume: check volume_limits" in caplog.text


def test_frames_that_do_not_reach_the_volume_are_not_read(make_scan, monkeypatch, caplog):
    """A small volume round what one pixel sees needs the frames round that one, and gets all of them."""
    from tds2el.experiment.frames import FrameSeries

    caplog.set_level("INFO", "tds2el")
    scan = make_scan(n_frames=60)
    read, sources = set(), FrameSeries.sources
    monkeypatch.setattr(FrameSeries, "sources", lambda self, n: read.update(n.tolist()) or sources(self, n))
    limits = [[x - 0.2, x + 0.2] for x in scan.places(5)[20, 30].tolist()]
    with scan.run(volume_limits=limits, volume_shape=9) as volume:
        scan.check(volume, fewest=20)
    assert 5 in read
    assert len(read) < 30
    assert f"{len(read)} frames read" in caplog.text
