"""The plan against brute force: what the Ewald sphere cuts, where, and in how many passages."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tds2el.experiment.geometry import Geometry
from tds2el.harvest.plan import make_plan, passages, regions, shifted_plan
from tds2el.settings import Experiment

SHAPE = (34, 45)
BASE = Experiment(
    pixel_size=4.0, dist=100.0, lmbda=0.7, beam_tilt_angle=0.0, det_origin_X=17.0, det_origin_Y=22.0,
    d1=0.0, d2=0.0, theta=0.0, theta_offset=0.0, omega=0.0, omega_offset=0.0, alpha=50.0, beta=0.0, kappa=0.0,
    phi=0.0, angular_step=1.0, r1=10.0, r2=20.0, r3=30.0, orientation_codes=0, pol_degree=1.0,
    normal_to_pol=(0.0, 0.0, 1.0),
)  # fmt: skip


def change(**values):
    return Geometry(Experiment(**(vars(BASE) | values)))


def all_q(geometry, phi):
    rows, columns = np.indices(SHAPE)
    return geometry.q_crystal(rows, columns, phi)


@st.composite
def geometries(draw):
    angle = st.floats(-180, 180)
    tilt = st.floats(-40, 40)
    return change(
        dist=draw(st.floats(30, 300)), beam_tilt_angle=draw(st.floats(-2, 2)), d1=draw(angle), d2=draw(tilt),
        det_origin_X=draw(st.floats(-40, 70)), det_origin_Y=draw(st.floats(-40, 70)), theta=draw(tilt),
        omega=draw(angle), kappa=draw(angle), beta=draw(st.floats(-5, 5)), phi=draw(angle), r1=draw(angle),
        r2=draw(angle), angular_step=draw(st.sampled_from([0.25, 1.0, -1.0, 5.0])),
        orientation_codes=draw(st.integers(0, 7)),
        sensor_thickness=draw(st.sampled_from([0.0, 0.0, 3.0])), sensor_mu=draw(st.floats(0.05, 5)),
    )  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    geometries(),
    st.integers(0, SHAPE[0] - 1),
    st.integers(0, SHAPE[1] - 1),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.floats(0.01, 0.6),
)
def test_regions_hold_every_pixel_of_the_ball(geometry, row, column, offset, delta):
    frames = np.arange(7.0)
    node = geometry.q_crystal(row, column, geometry.phi(3)) + delta * np.array(offset)
    plan = make_plan(geometry, node[None], frames, delta, SHAPE)
    for frame in range(7):
        ball = np.linalg.norm(all_q(geometry, geometry.phi(frame)) - node, axis=-1) <= delta
        seen = np.zeros(SHAPE, dtype=int)
        for first, end, left, right in plan.region[plan.frame == frame]:
            seen[first:end, left:right] += 1
        assert seen.max() <= 1
        assert not (ball & (seen == 0)).any()


def test_regions_are_tight():
    geometry = change(pixel_size=0.5, d1=3.0, d2=-12.0, theta=7.0, orientation_codes=5, det_origin_X=60.0)
    shape, delta = (220, 300), 0.06
    node = geometry.q_crystal(150, 100, 0.0)
    first, end, left, right = regions(geometry, node[None], np.zeros(1), delta, shape)[0]
    rows, columns = np.indices(shape)
    ball = np.linalg.norm(geometry.q_crystal(rows, columns, 0.0) - node, axis=-1) <= delta
    rows, columns = np.nonzero(ball)
    assert rows.size > 100
    for box, pixels in (((first, end), rows), ((left, right), columns)):
        assert pixels.min() - 2 <= box[0] <= pixels.min()
        assert pixels.max() < box[1] <= pixels.max() + 3


def test_ball_behind_the_detector_has_no_region():
    geometry = change()
    node = np.array([[2 / 0.7, 0, 0]]) @ geometry.lab_to_crystal(0.0).T  # back-scattering
    first, end, left, right = regions(geometry, node, np.zeros(1), 0.05, SHAPE)[0]
    assert end <= first or right <= left


def crossing_node(geometry, two_theta=20.0, azimuth=60.0):
    """A node on the Ewald sphere at phi = 0."""
    turn = np.deg2rad([two_theta, azimuth])
    ray = [-np.cos(turn[0]), np.sin(turn[0]) * np.cos(turn[1]), np.sin(turn[0]) * np.sin(turn[1])]
    return geometry.lab_to_crystal(0.0) @ ((np.array(ray) + geometry.beam) / geometry.experiment.lmbda)


def cut_frames(geometry, node, angle_index, delta):
    """Frames whose sphere holds a point within delta of the node, the sphere being a closed surface."""
    g_lab = np.linalg.inv(geometry.lab_to_crystal(geometry.phi(angle_index))) @ node
    centre = -geometry.beam / geometry.experiment.lmbda  # of the sphere Q·Q + 2 Q·centre = 0, in the lab
    distance = np.abs(np.linalg.norm(g_lab + centre, axis=-1) - 1 / geometry.experiment.lmbda)
    return np.flatnonzero(distance <= delta)


@pytest.mark.parametrize("step", [0.1, -0.1])
def test_a_full_turn_passes_a_node_twice(step):
    geometry = change(phi=-180.0 if step > 0 else 180.0, angular_step=step)
    node, index = crossing_node(geometry), np.arange(3600.0)
    found = passages(geometry, node, index, 0.02)
    assert len(found) == 2
    np.testing.assert_array_equal(
        np.sort(np.concatenate([p.frames for p in found])), cut_frames(geometry, node, index, 0.02)
    )
    assert min(abs(p.angle) for p in found) < 1e-6
    for passage in found:
        assert np.all(np.diff(passage.frames) == 1)
        g_lab = np.linalg.inv(geometry.lab_to_crystal(passage.angle)) @ node
        assert np.linalg.norm(geometry.experiment.lmbda * g_lab - geometry.beam) == pytest.approx(1, abs=1e-12)


def test_two_turns_give_four_passages():
    geometry = change(phi=-180.0)
    found = passages(geometry, crossing_node(geometry), np.arange(720.0), 0.02)
    angles = [p.angle for p in found]
    assert len(angles) == 4
    np.testing.assert_allclose(np.array(angles[2:]) - angles[:2], 360, atol=1e-9)


@pytest.mark.parametrize(
    ("step", "gap_frames", "passages_expected"),
    [(0.1, 5, 1), (0.1, 6, 2), (2.0, 1, 1), (2.0, 2, 2), (0.5, 1, 1)],
)
def test_gap_between_passages(step, gap_frames, passages_expected):
    # |c|² = 1 + λ²G² − 2λ G1 cos φ: the node dips inside the sphere about φ = 0, where a ball of the radius that
    # just touches the sphere at the edges of the middle frames is not cut.
    n = 40 + gap_frames
    geometry = change(r1=0.0, r2=0.0, r3=0.0, alpha=0.0, phi=-step * (n - 1) / 2, angular_step=step)
    lmbda, g = geometry.experiment.lmbda, np.array([0.4, 0.0, 0.3])
    edge = np.deg2rad(step * gap_frames / 2)
    delta = (1 - np.sqrt(1 + lmbda**2 * g @ g - 2 * lmbda * g[0] * np.cos(edge))) / lmbda
    found = passages(geometry, g, np.arange(float(n)), delta)
    cut = np.concatenate([p.frames for p in found])
    np.testing.assert_array_equal(np.setdiff1d(np.arange(n), cut), 20 + np.arange(gap_frames))
    assert len(found) == passages_expected


def test_missing_frames_do_not_end_a_passage():
    geometry = change(angular_step=0.1, phi=-3.0)
    node = crossing_node(geometry)
    complete = passages(geometry, node, np.arange(60.0), 0.03)
    cut = complete[0].frames
    kept = np.setdiff1d(np.arange(60), cut[2:-2])
    assert len(complete) == 1
    assert len(cut) > 14
    found = passages(geometry, node, kept.astype(float), 0.03)
    assert len(found) == 1
    assert found[0].angle == complete[0].angle
    np.testing.assert_array_equal(kept[found[0].frames], [*cut[:2], *cut[-2:]])


def test_angle_of_a_node_that_is_never_on_the_sphere():
    geometry = change(phi=-5.0)
    node = crossing_node(geometry)
    # A scan that stops 0.7° short of the node: its nearest angle is the end of the last frame.
    found = passages(change(phi=-5.2), node, np.arange(5.0), 0.03)
    assert [p.angle for p in found] == pytest.approx([-0.7], abs=1e-9)
    # A node whose circle stays outside the sphere (λG² > 2 G1): nearest where it turns round, at phi = −r3.
    still = change(r1=0.0, r2=0.0, r3=20.0, alpha=0.0, phi=-30.0)
    found = passages(still, np.array([0.06, 0.0, 0.5]), np.arange(21.0), 0.05)
    assert [p.angle for p in found] == pytest.approx([-20.0], abs=1e-9)


def test_passages_that_miss_the_detector_are_no_blobs():
    geometry = change(phi=-180.0, pixel_size=1.0)
    node = geometry.q_crystal(5, 5, 0.0)
    index = np.arange(360.0)
    assert len(passages(geometry, node, index, 0.02)) == 2
    plan = make_plan(geometry, node[None], index, 0.02, (10, 10))
    assert plan.angle == pytest.approx([0.0], abs=1e-6)
    assert set(plan.blob) == {0}


BIG = (400, 400)


def in_balls(geometry, node, frames, delta, shape):
    """Whether any pixel of each frame lies in the ball."""
    rows, columns = np.indices(shape)
    return [
        bool((np.linalg.norm(geometry.q_crystal(rows, columns, geometry.phi(n)) - node, axis=-1) <= delta).any())
        for n in frames
    ]


@pytest.mark.parametrize("shift", [(0.004, 0.0, 0.0), (-0.01, 0.005, 0.0), (0.0, 0.0, 0.012), (-0.03, 0.0, 0.0)])
def test_shifted_passages_share_no_frame_and_lose_none(shift):
    """A node that dips inside the sphere passes twice; shifted, its ball may be cut in between as well, or nowhere."""
    geometry = change(r1=0.0, r2=0.0, r3=0.0, alpha=0.0, phi=-60.0, angular_step=2.0, pixel_size=0.5,
                      det_origin_X=200.0, det_origin_Y=200.0)  # fmt: skip
    delta, index = 0.01, np.arange(61.0)
    # On the sphere at phi = ±40°, where λG² = 2 G1 cos phi.
    cosine, g3 = np.cos(np.deg2rad(40.0)), 0.5
    node = np.array([(cosine - np.sqrt(cosine**2 - (0.7 * g3) ** 2)) / 0.7, 0.0, g3])
    plan = make_plan(geometry, node[None], index, delta, BIG)
    np.testing.assert_allclose(plan.angle, [-40, 40], atol=1e-9)
    shifted = shifted_plan(plan, np.array([shift, shift]), geometry, node[None], index, delta, BIG)
    expected = np.flatnonzero(in_balls(geometry, node + shift, range(61), delta, BIG))
    assert set(expected) <= set(shifted.frame) <= set(cut_frames(geometry, node + shift, index, delta))
    assert len(set(shifted.frame)) == len(shifted.frame)
    # What lies nearer to the first passage belongs to it.
    first = plan.frame[plan.blob == 0].max(), plan.frame[plan.blob == 1].min()
    for blob, angle in enumerate(shifted.angle):
        own = shifted.frame[shifted.blob == blob]
        assert (own <= sum(first) / 2).all() if angle < 0 else (own >= sum(first) / 2).all()
    only_second = shifted_plan(plan, np.array([(0, 0, 0), shift]), geometry, node[None], index, delta, BIG)
    np.testing.assert_array_equal(only_second.frame[only_second.blob == 0], plan.frame[plan.blob == 0])
    np.testing.assert_array_equal(only_second.region[only_second.blob == 0], plan.region[plan.blob == 0])


def test_a_ball_that_leaves_the_detector_is_no_blob():
    geometry = change(phi=-10.0)
    node = geometry.q_crystal(17, 1, 0.0)
    plan = make_plan(geometry, node[None], np.arange(21.0), 0.02, SHAPE)
    assert len(plan.node) == 1
    away = geometry.q_crystal(17, -30, 0.0) - node
    assert len(shifted_plan(plan, away[None], geometry, node[None], np.arange(21.0), 0.02, SHAPE).node) == 0
