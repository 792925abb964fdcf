"""Profiles are what direct binning of all points gives; pulls follow the counting statistics."""

import numpy as np
import pytest

from tds2el.fit.profiles import ANGLE_EDGES, PULL_EDGES, ProfileSums, azimuth_axes
from tds2el.model.engine import Points

NODES = np.array([[0.2, 0.1, 0.3], [0.0, 0.0, -0.4]])
N = 4000


class Halo:
    """Two spots with counts drawn from a known mean."""

    def __init__(self, relative_error=0.0, level=20.0, left_out=(False, False)):
        rng = np.random.default_rng(3)
        direction = rng.normal(size=(2, N, 3))
        self.radius = rng.uniform(0.02, 0.06, size=(2, N))
        self.q = direction * (self.radius / np.linalg.norm(direction, axis=-1))[..., None]
        self.kappa = rng.uniform(0.5, 1.5, size=(2, N))
        self.mean = level * self.kappa * (1 + (0.03 / self.radius) ** 2)
        spread = rng.gamma(relative_error**-2, relative_error**2, size=(2, N)) if relative_error else 1.0
        self.counts = rng.poisson(self.mean * spread).astype(float)
        self.variance = self.mean + (relative_error * self.mean) ** 2
        points = Points(
            NODES, np.full(2, N), self.counts.mean(axis=1), self.kappa.mean(axis=1), 0.06, pieces=iter, q_min=0.02
        )
        sums = ProfileSums(points, np.array(left_out), relative_error)
        for spot in range(2):
            for piece in (slice(0, 1), slice(1, 1700), slice(1700, N)):
                sums.add(spot, *(a[spot, piece] for a in (self.q, self.counts, self.kappa, self.mean)))
        self.profiles = sums.profiles()

    def angles(self, spot):
        """Angle to G, by the arc between unit vectors."""
        u = self.q[spot] / self.radius[spot][:, None]
        v = NODES[spot] / np.linalg.norm(NODES[spot])
        return np.degrees(2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1)))


@pytest.fixture(scope="module")
def halo():
    return Halo()


def test_no_point_and_no_count_is_lost(halo):
    for profile in (halo.profiles.radial, halo.profiles.angle, halo.profiles.azimuth):
        np.testing.assert_array_equal(profile.points.sum(axis=1), [N, N])
        # Σκ of a bin follows from the model: σ² Σκ² = Σ variance = Σm = model Σκ.
        with np.errstate(invalid="ignore"):
            correction = profile.model / profile.sigma**2
        np.testing.assert_allclose(np.nansum(correction, axis=1), halo.kappa.sum(axis=1))
        np.testing.assert_allclose(np.nansum(correction * profile.intensity, axis=1), halo.counts.sum(axis=1))


@pytest.mark.parametrize("spot", [0, 1])
@pytest.mark.parametrize("name", ["radial", "angle"])
def test_profiles_are_ratios_of_sums_over_the_points_of_each_bin(halo, name, spot):
    profile = getattr(halo.profiles, name)
    x = halo.radius[spot] if name == "radial" else halo.angles(spot)
    for n, (low, high) in enumerate(zip(profile.edges[:-1], profile.edges[1:], strict=True)):
        inside = (x >= low) & (x < high)
        kappa = halo.kappa[spot, inside].sum()
        assert profile.points[spot, n] == inside.sum()
        assert profile.intensity[spot, n] == pytest.approx(halo.counts[spot, inside].sum() / kappa)
        assert profile.model[spot, n] == pytest.approx(halo.mean[spot, inside].sum() / kappa)
        assert profile.sigma[spot, n] == pytest.approx(np.sqrt(halo.variance[spot, inside].sum()) / kappa)


def test_a_bin_without_points_is_nan():
    points = Points(NODES[:1], np.array([1]), np.ones(1), np.ones(1), 0.06, pieces=iter)
    sums = ProfileSums(points, np.array([False]))
    sums.add(0, np.array([[0.0, 0.0, 0.06]]), np.ones(1), np.ones(1), np.ones(1))
    radial = sums.profiles().radial
    assert radial.intensity[0, -1] == 1.0  # |q| = q_max belongs to the last bin
    assert np.isnan(radial.intensity[0, :-1]).all()
    assert np.isnan(radial.model[0, :-1]).all()


@pytest.mark.parametrize(("node", "towards"), [(NODES[0], "z"), (NODES[1], "x"), (np.array([0.001, 0, 0.5]), "x")])
def test_azimuths_turn_right_handed_about_the_node_from_a_named_axis(node, towards):
    zero, ninety, name = azimuth_axes(node)
    unit = node / np.linalg.norm(node)
    np.testing.assert_allclose(np.linalg.det([zero, ninety, unit]), 1.0)
    assert name == towards
    axis = np.eye(3)["xyz".index(name)]
    assert zero @ axis > 0
    assert ninety @ axis == pytest.approx(0.0, abs=1e-15)


def test_azimuth_zero_and_a_quarter_turn_fall_into_their_bins():
    zero, ninety, _ = azimuth_axes(NODES[0])
    points = Points(NODES[:1], np.array([2]), np.ones(1), np.ones(1), 0.06, pieces=iter)
    sums = ProfileSums(points, np.array([False]))
    along = NODES[0] / np.linalg.norm(NODES[0])
    for degrees in (1.0, 91.0):
        turn = np.radians(degrees)
        direction = zero * np.cos(turn) + ninety * np.sin(turn) + 0.1 * along  # 84° from G
        sums.add(0, 0.05 * direction[None], np.ones(1), np.ones(1), np.ones(1))
    profiles = sums.profiles()
    starts = profiles.azimuth.edges[:-1]
    np.testing.assert_allclose(starts[profiles.azimuth.points[0] == 1], [0.0, 90.0])
    np.testing.assert_array_equal(ANGLE_EDGES[:-1][profiles.angle.points[0] > 0], [80.0])


def test_pulls_are_those_of_the_points(halo):
    pulls = halo.profiles.pulls
    direct = ((halo.counts - halo.mean) / np.sqrt(halo.variance)).ravel()
    np.testing.assert_array_equal(pulls.points, np.histogram(direct, PULL_EDGES)[0])
    assert pulls.points.sum() + pulls.below + pulls.above == 2 * N
    assert pulls.mean == pytest.approx(direct.mean())
    assert pulls.rms == pytest.approx(np.sqrt((direct**2).mean()))
    inside = (halo.radius.ravel() >= pulls.q_edges[5]) & (halo.radius.ravel() < pulls.q_edges[6])
    assert pulls.q_mean[5] == pytest.approx(direct[inside].mean())
    assert pulls.q_rms[5] == pytest.approx(np.sqrt((direct[inside] ** 2).mean()))
    assert pulls.q_points[5] == inside.sum()


@pytest.mark.parametrize(("relative_error", "level"), [(0.0, 0.3), (0.0, 30.0), (0.2, 30.0)])
def test_counts_drawn_from_the_model_give_the_expected_pulls(relative_error, level):
    pulls = Halo(relative_error, level).profiles.pulls
    assert pulls.expected.sum() == pytest.approx(2 * N, rel=2e-3)
    enough = pulls.expected > 5
    chi2 = ((pulls.points - pulls.expected)[enough] ** 2 / pulls.expected[enough]).sum()
    assert abs(chi2 - enough.sum()) < 4 * np.sqrt(2 * enough.sum())
    assert abs(pulls.rms - 1) < 0.05


def test_pulls_far_out_are_counted_beyond_the_edges():
    points = Points(NODES[:1], np.array([2]), np.ones(1), np.ones(1), 0.06, pieces=iter)
    sums = ProfileSums(points, np.array([False]))
    sums.add(0, np.full((2, 3), 0.01), np.array([1e3, 0.0]), np.ones(2), np.full(2, 100.0))
    pulls = sums.profiles().pulls
    assert (pulls.below, pulls.above, pulls.points.sum()) == (1, 1, 0)


def test_spots_that_were_left_out_have_profiles_but_no_pulls(halo):
    profiles = Halo(left_out=(False, True)).profiles
    np.testing.assert_array_equal(profiles.radial.points, halo.profiles.radial.points)
    assert profiles.pulls.q_points.sum() == N
    assert profiles.pulls.points.sum() + profiles.pulls.below + profiles.pulls.above == N
