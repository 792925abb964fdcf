"""Experiment lists of DIALS (`.expt`, JSON of dxtbx): read every sweep, write one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tds2el.errors import InputError
from tds2el.interchange.lab import Detector, Sweep, split_template, turn, unit

Array = npt.NDArray[np.float64]
Json = Mapping[str, Any]

# Panels of one plane may be off it, or off their place in the image, by so many pixels.
_OFF = 0.05


def read_dials(path: Path, text: str) -> list[Sweep]:
    """The sweeps of an experiment list.

    Parameters
    ----------
    path : Path
        For messages.
    text : str
        What it holds.

    Raises
    ------
    InputError
        If the file is no experiment list, or holds what a flat detector and one turning axis cannot describe.
    """
    try:
        data = json.loads(text)
    except ValueError:
        raise InputError(f"{path}: no JSON; give the .expt file that DIALS wrote") from None
    if not isinstance(data, dict) or data.get("__id__") != "ExperimentList" or not data.get("experiment"):
        raise InputError(f"{path}: no experiment list of DIALS; give a .expt file")
    try:
        return [_sweep(data, entry) for entry in data["experiment"]]
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not laid out as DIALS does ({type(error).__name__}: {error})") from None


def _sweep(data: Json, entry: Json) -> Sweep:
    def model(name: str) -> Json | None:
        index = entry.get(name)
        return None if index is None else data[name][index]

    beam, detector, scan, goniometer = (model(name) for name in ("beam", "detector", "scan", "goniometer"))
    if beam is None or detector is None:
        raise InputError("an experiment without beam or detector; import the images with DIALS first")
    if "wavelength" not in beam:
        raise InputError("a polychromatic beam, which has no wavelength; only monochromatic sweeps can be used")
    if scan is None or goniometer is None:
        raise InputError("still images, without scan or goniometer; only sweeps can be used")
    remarks = []
    axis, setting, fixed = _goniometer(goniometer)
    crystal, UB = model("crystal"), None
    if crystal is None:
        remarks.append("no crystal was indexed: orientation and cell are missing")
    else:
        axes = np.array([crystal[f"real_space_{name}"] for name in "abc"], dtype=float)
        UB = setting @ fixed @ np.linalg.inv(axes)
        if "A_at_scan_points" in crystal:
            remarks.append("the crystal was refined frame by frame; this is its mean orientation")
    start, width, first, last = _scan(scan)
    prefix, postfix = split_template(str((model("imageset") or {}).get("template") or ""))
    return Sweep(
        _detector(detector),
        source=unit(beam["direction"]),
        wavelength=float(beam["wavelength"]),
        axis=unit(setting @ axis),
        start=start,
        width=width,
        UB=UB,
        normal=unit(beam.get("polarization_normal", (0.0, 1.0, 0.0))),
        polarisation=float(beam.get("polarization_fraction", 0.999)),
        prefix=prefix,
        postfix=postfix,
        first_number=first,
        n_frames=last - first + 1,
        remarks=tuple(remarks),
    )


def _goniometer(model: Json) -> tuple[Array, Array, Array]:
    """Scan axis, setting rotation S and fixed rotation F: the crystal turns by S R(axis) F."""
    if "axes" not in model:
        matrices = (model.get(name, np.eye(3)) for name in ("setting_rotation", "fixed_rotation"))
        setting, fixed = (np.reshape(np.asarray(m, dtype=float), (3, 3)) for m in matrices)
        return unit(model["rotation_axis"]), setting, fixed
    # From the crystal outwards.
    turns = [turn(unit(a), float(x)) for a, x in zip(model["axes"], model["angles"], strict=True)]
    scan_axis = int(model["scan_axis"])
    fixed, setting = np.eye(3), np.eye(3)
    for matrix in turns[:scan_axis]:
        fixed = matrix @ fixed
    for matrix in turns[scan_axis + 1 :]:
        setting = matrix @ setting
    return unit(model["axes"][scan_axis]), setting, fixed


def _scan(model: Json) -> tuple[float, float, int, int]:
    """Start angle and width (degrees), numbers of the first and last image."""
    first, last = (int(n) for n in model["image_range"])
    if "oscillation" in model:
        start, width = (float(x) for x in model["oscillation"])
    else:
        properties = model.get("properties", {})
        if "oscillation" not in properties:
            raise InputError("a scan without rotation; only sweeps can be used")
        starts = [float(x) for x in properties["oscillation"]]
        widths = properties.get("oscillation_width", [0.0])
        start = starts[0]
        width = (starts[-1] - start) / (len(starts) - 1) if len(starts) > 1 else float(widths[0])
    if width == 0:
        raise InputError("a scan without rotation; only sweeps can be used")
    return start, width, first, last


def _detector(model: Json) -> Detector:
    panels = _panels(model)
    first = panels[0]
    if abs(first.size[0] / first.size[1] - 1) > 1e-6:
        raise InputError(f"pixels of {first.size[0]:g} × {first.size[1]:g} mm; only square ones can be used")
    pixel = first.size[0]
    if len(panels) > 1 and len({panel.offset for panel in panels}) < len(panels):
        raise InputError("panels without a place in the image (raw_image_offset); import the images as one panel")
    # Where the image's first pixel would be in the plane of the first panel.
    origin = first.origin - pixel * (first.offset[0] * first.fast + first.offset[1] * first.slow)
    for number, panel in enumerate(panels):
        size = panel.raw["image_size"]
        for column, row in ((0, 0), (size[0], 0), (0, size[1]), tuple(size)):
            there = panel.origin + panel.size[0] * column * panel.fast + panel.size[1] * row * panel.slow
            column, row = column + panel.offset[0], row + panel.offset[1]
            off = np.linalg.norm(there - origin - pixel * (column * first.fast + row * first.slow)) / pixel
            if off > _OFF:
                raise InputError(
                    f"panel {number} lies {off:.2f} pixels off the plane and grid of panel 0; only one flat detector "
                    "can be used"
                )
    thickness, mu = first.parallax
    if any(panel.parallax != first.parallax for panel in panels):
        raise InputError("panels with different sensors; only one flat detector can be used")
    rows, columns = (max(p.offset[i] + int(p.raw["image_size"][i]) for p in panels) for i in (1, 0))
    # The middle of a pixel is half a pixel from its corner, where DIALS counts from.
    middle = origin + pixel / 2 * (first.fast + first.slow)
    return Detector(middle, first.slow, first.fast, pixel, (rows, columns), thickness, mu)


class _Panel:
    """A panel in the lab, from its own frame and those of the groups that it is in."""

    def __init__(self, raw: Json, groups: Sequence[Json]) -> None:
        self.raw = raw
        self.origin, self.fast, self.slow = (
            np.array(raw[k], dtype=float) for k in ("origin", "fast_axis", "slow_axis")
        )
        for group in reversed(groups):
            fast, slow = unit(group["fast_axis"]), unit(group["slow_axis"])
            frame = np.column_stack([fast, slow, np.cross(fast, slow)])
            self.origin = np.array(group["origin"], dtype=float) + frame @ self.origin
            self.fast, self.slow = frame @ self.fast, frame @ self.slow
        self.size = tuple(float(x) for x in raw["pixel_size"])
        self.offset = tuple(int(x) for x in raw.get("raw_image_offset", (0, 0)))

    @property
    def parallax(self) -> tuple[float, float]:
        """Thickness and absorption, 0 and 0 where none is corrected."""
        strategy = self.raw.get("px_mm_strategy", {}).get("type", "SimplePxMmStrategy")
        if strategy == "SimplePxMmStrategy":
            return 0.0, 0.0
        if strategy != "ParallaxCorrectedPxMmStrategy":
            raise InputError(f"pixels are corrected by {strategy}, which is not known here")
        thickness, mu = float(self.raw["thickness"]), float(self.raw["mu"])
        return (thickness, mu) if thickness > 0 and mu > 0 else (0.0, 0.0)


def _panels(model: Json) -> list[_Panel]:
    panels, hierarchy = model["panels"], model.get("hierarchy")
    if hierarchy is None:
        return [_Panel(panel, ()) for panel in panels]
    found: dict[int, _Panel] = {}

    def walk(group: Json, above: tuple[Json, ...]) -> None:
        for child in group.get("children", ()):
            if "panel" in child:
                found[int(child["panel"])] = _Panel(panels[int(child["panel"])], (*above, group))
            else:
                walk(child, (*above, group))

    walk(hierarchy, ())
    if sorted(found) != list(range(len(panels))):
        raise InputError("the detector's hierarchy does not name every panel once")
    return [found[n] for n in range(len(panels))]


def dials_text(sweep: Sweep) -> str:
    """An experiment list with one sweep, whose detector has a shape and which has an orientation and a scan."""
    detector = sweep.detector
    assert detector.shape is not None
    assert sweep.UB is not None
    axes = np.linalg.inv(sweep.UB)
    corner = detector.origin - detector.pixel_size / 2 * (detector.fast + detector.slow)
    thick = detector.sensor_thickness > 0
    strategy = "ParallaxCorrectedPxMmStrategy" if thick else "SimplePxMmStrategy"
    frame = {
        "name": "Panel",
        "type": "SENSOR_PAD",
        "fast_axis": detector.fast.tolist(),
        "slow_axis": detector.slow.tolist(),
        "origin": corner.tolist(),
        "raw_image_offset": [0, 0],
        "image_size": [detector.shape[1], detector.shape[0]],
        "pixel_size": [detector.pixel_size, detector.pixel_size],
        "trusted_range": [0.0, 2147483647.0],
        "thickness": detector.sensor_thickness,
        "material": "",
        "mu": detector.sensor_mu,
        "identifier": "",
        "mask": [],
        "gain": 1.0,
        "pedestal": 0.0,
        "px_mm_strategy": {"type": strategy},
    }
    first = sweep.first_number or 1
    last = first + (sweep.n_frames or 1) - 1
    scan = {
        "image_range": [first, last],
        "batch_offset": 0,
        "oscillation": [sweep.start, sweep.width],
        "exposure_time": [0.0] * (last - first + 1),
        "epochs": [0.0] * (last - first + 1),
        "valid_image_ranges": {},
    }
    template = sweep.prefix + "#" * 5 + sweep.postfix if sweep.prefix else ""
    identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    models: dict[str, list[object]] = {
        "imageset": [{"__id__": "ImageSequence", "template": template, "mask": "", "gain": "", "pedestal": "",
                      "dx": "", "dy": "", "params": {}}],
        "beam": [{"direction": sweep.source.tolist(), "wavelength": sweep.wavelength, "divergence": 0.0,
                  "sigma_divergence": 0.0, "polarization_normal": np.asarray(sweep.normal).tolist(),
                  "polarization_fraction": sweep.polarisation, "flux": 0.0, "transmission": 1.0}],
        "detector": [{"panels": [frame]}],
        "goniometer": [{"rotation_axis": sweep.axis.tolist(), "fixed_rotation": identity,
                        "setting_rotation": identity}],
        "scan": [scan],
        "crystal": [{"__id__": "crystal", "space_group_hall_symbol": " P 1",
                     **{f"real_space_{name}": row.tolist() for name, row in zip("abc", axes, strict=True)}}],
    }  # fmt: skip
    entry = {"__id__": "Experiment", "identifier": "", **dict.fromkeys(models, 0)}
    whole = {"__id__": "ExperimentList", "experiment": [entry], **models, "profile": [], "scaling_model": []}
    return json.dumps(whole, indent=2) + "\n"
