"""Experiment lists made by hand, against the vectors that went into them."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from tds2el.errors import InputError
from tds2el.interchange.dials import dials_text, read_dials
from tds2el.interchange.lab import Sweep, values_of

from .conftest import SHAPE, random_sweep

EXPT = Path("list.expt")


def _turn(degrees: float, axis: np.ndarray) -> Rotation:
    return Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis))


def experiment_list(sweep: Sweep, scan_axis: int = 1) -> dict:
    """As DIALS writes it, with two circles of which one turns; where it is the inner one, the other has turned it."""
    d = sweep.detector
    inner, outer = np.array([0.5774, -0.8165, 0.0]), np.array([1.0, 0.0, 0.0])
    angles = [25.0, -145.0]
    turns = [_turn(a, v) for a, v in zip(angles, (inner, outer), strict=True)]
    # A lab in which the circle that turns lies along sweep.axis.
    along = outer if scan_axis == 1 else turns[1].apply(inner)
    lab = Rotation.align_vectors([sweep.axis], [along])[0]
    axes = [lab.apply(v) for v in (inner, outer)]
    turns = [_turn(a, v) for a, v in zip(angles, axes, strict=True)]
    resting = turns[0] if scan_axis == 1 else turns[1]
    vectors = np.linalg.inv(sweep.UB)  # rows a, b, c when the other circle stands at its angle
    vectors = resting.inv().apply(vectors)
    corner = d.origin - d.pixel_size / 2 * (d.fast + d.slow)
    strategy = "ParallaxCorrectedPxMmStrategy" if d.sensor_thickness else "SimplePxMmStrategy"
    panel = {
        "origin": corner.tolist(), "fast_axis": d.fast.tolist(), "slow_axis": d.slow.tolist(), "name": "Panel",
        "raw_image_offset": [0, 0], "thickness": d.sensor_thickness, "mu": d.sensor_mu,
        "px_mm_strategy": {"type": strategy}, "image_size": [SHAPE[1], SHAPE[0]], "pixel_size": [d.pixel_size] * 2,
    }  # fmt: skip
    return {
        "__id__": "ExperimentList",
        "experiment": [dict.fromkeys(("beam", "detector", "goniometer", "scan", "crystal", "imageset"), 0)],
        "imageset": [{"__id__": "ImageSequence", "template": "/data/run_01_#####.cbf"}],
        "crystal": [{f"real_space_{n}": v.tolist() for n, v in zip("abc", vectors, strict=True)}],
        "scan": [{"image_range": [1, 900], "oscillation": [sweep.start, sweep.width]}],
        "goniometer": [
            {"axes": [a.tolist() for a in axes], "scan_axis": scan_axis, "names": ["P", "O"], "angles": angles}
        ],
        "beam": [
            {"direction": sweep.source.tolist(), "wavelength": sweep.wavelength, "polarization_fraction": 0.97,
             "polarization_normal": sweep.normal.tolist()}
        ],
        "detector": [{"panels": [panel]}],
    }  # fmt: skip


def read(data: dict) -> Sweep:
    (found,) = read_dials(EXPT, json.dumps(data))
    return found


@pytest.mark.parametrize("scan_axis", [0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_hkl_is_that_of_the_vectors(pixels, seed, scan_axis):
    sweep = random_sweep(seed, mirrored=seed % 2 == 0, thick=seed > 1)
    found = read(experiment_list(sweep, scan_axis))
    np.testing.assert_allclose(pixels.hkl_of(values_of(found)), pixels.hkl_in_lab(sweep), rtol=0, atol=1e-9)
    assert (found.prefix, found.postfix) == ("/data/run_01_", ".cbf")
    assert (found.first_number, found.n_frames, found.detector.shape) == (1, 900, SHAPE)
    assert (found.detector.sensor_thickness, found.detector.sensor_mu) == ((0.45, 1.3) if seed > 1 else (0, 0))
    assert values_of(found)["pol_degree"] == 0.97


def test_single_axis_with_fixed_and_setting_rotation(sweep, pixels):
    data = experiment_list(sweep)
    setting, fixed = Rotation.random(random_state=4), Rotation.random(random_state=5)
    data["goniometer"] = [
        {
            "rotation_axis": setting.inv().apply(sweep.axis).tolist(),
            "setting_rotation": setting.as_matrix().ravel().tolist(),
            "fixed_rotation": fixed.as_matrix().ravel().tolist(),
        }
    ]
    axes = (setting * fixed).inv().apply(np.linalg.inv(sweep.UB))
    data["crystal"] = [{f"real_space_{n}": v.tolist() for n, v in zip("abc", axes, strict=True)}]
    np.testing.assert_allclose(pixels.hkl_of(values_of(read(data))), pixels.hkl_in_lab(sweep), atol=1e-9)


def test_scans_of_newer_versions(sweep):
    data = experiment_list(sweep)
    starts = (sweep.start + sweep.width * np.arange(900)).tolist()
    data["scan"] = [{"image_range": [1, 900], "properties": {"oscillation": starts}}]
    found = read(data)
    assert (found.start, found.width) == pytest.approx((sweep.start, sweep.width), abs=1e-10)
    data["scan"] = [{"image_range": [1, 1], "properties": {"oscillation": starts[:1], "oscillation_width": [0.1]}}]
    assert read(data).width == 0.1


def modules(data: dict, gap: int = 7) -> dict:
    """The same detector as two panels, 200 columns and what is left after a gap."""
    data = copy.deepcopy(data)
    (whole,) = data["detector"][0]["panels"]
    panels = []
    for first, columns in ((0, 200), (200 + gap, SHAPE[1] - 200 - gap)):
        panel = copy.deepcopy(whole)
        panel["raw_image_offset"] = [first, 0]
        panel["image_size"] = [columns, SHAPE[0]]
        panel["origin"] = (np.array(whole["origin"]) + 0.172 * first * np.array(whole["fast_axis"])).tolist()
        panels.append(panel)
    data["detector"][0]["panels"] = panels
    return data


def test_panels_of_one_plane_are_one_detector(sweep, pixels):
    found = read(modules(experiment_list(sweep)))
    assert found.detector.shape == SHAPE
    np.testing.assert_allclose(pixels.hkl_of(values_of(found)), pixels.hkl_in_lab(sweep), atol=1e-9)


def test_panels_in_groups_lie_where_their_groups_put_them(sweep, pixels):
    data = modules(experiment_list(sweep))
    lab = Rotation.random(random_state=8)
    frame, shift = lab.as_matrix(), np.array([3.0, -4.0, 50.0])
    for panel in data["detector"][0]["panels"]:
        panel["origin"] = (frame.T @ (np.array(panel["origin"]) - shift)).tolist()
        for name in ("fast_axis", "slow_axis"):
            panel[name] = (frame.T @ np.array(panel[name])).tolist()
    identity = {"origin": [0, 0, 0], "fast_axis": [1, 0, 0], "slow_axis": [0, 1, 0]}
    group = {"origin": shift.tolist(), "fast_axis": frame[:, 0].tolist(), "slow_axis": frame[:, 1].tolist()}
    data["detector"][0]["hierarchy"] = identity | {"children": [group | {"children": [{"panel": 0}, {"panel": 1}]}]}
    np.testing.assert_allclose(pixels.hkl_of(values_of(read(data))), pixels.hkl_in_lab(sweep), atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_written_and_read(pixels, seed):
    sweep = random_sweep(seed, thick=seed > 1)
    again = read(json.loads(dials_text(replace(sweep, prefix="/d/f_", postfix=".cbf"))))
    np.testing.assert_allclose(pixels.hkl_in_lab(again), pixels.hkl_in_lab(sweep), atol=1e-9)
    assert (again.detector.shape, again.n_frames, again.first_number) == (SHAPE, 900, 1)
    assert (again.prefix, again.postfix, again.polarisation) == ("/d/f_", ".cbf", 0.97)
    np.testing.assert_allclose(again.normal, sweep.normal, atol=1e-12)


def test_a_crystal_is_not_needed(sweep):
    data = experiment_list(sweep)
    del data["experiment"][0]["crystal"]
    found = read(data)
    assert found.UB is None
    assert "r1" not in values_of(found)
    assert "orientation and cell are missing" in found.remarks[0]


def bent(data):
    panel = modules(data)["detector"][0]["panels"][1]
    panel["origin"][0] += 0.1
    return {"detector": [{"panels": [modules(data)["detector"][0]["panels"][0], panel]}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (bent, r"panel 1 lies 0\.\d+ pixels off the plane and grid of panel 0"),
        (lambda d: {"scan": [{"image_range": [1, 9], "oscillation": [3.0, 0.0]}]}, "without rotation"),
        (lambda d: {"beam": [{"direction": [0, 0, 1]}]}, "polychromatic"),
        (lambda d: {"detector": []}, r"not laid out as DIALS does \(IndexError"),
        (lambda d: {"experiment": [{"beam": 0, "detector": 0}]}, "still images"),
        (lambda d: {"__id__": "other"}, "no experiment list of DIALS"),
    ],
)
def test_what_cannot_be_used(sweep, change, message):
    data = experiment_list(sweep)
    with pytest.raises(InputError, match=f"^list.expt: .*{message}"):
        read(data | change(data))


def test_other_corrections_of_pixels_and_oblong_ones_are_refused(sweep):
    data = experiment_list(sweep)
    panel = data["detector"][0]["panels"][0]
    panel["px_mm_strategy"] = {"type": "OffsetParallaxCorrectedPxMmStrategy"}
    with pytest.raises(InputError, match="corrected by OffsetParallaxCorrectedPxMmStrategy"):
        read(data)
    panel["pixel_size"] = [0.172, 0.2]
    with pytest.raises(InputError, match="only square ones"):
        read(data)


def test_text_that_is_no_json():
    with pytest.raises(InputError, match=r"list\.expt: no JSON"):
        read_dials(EXPT, "{oops")
