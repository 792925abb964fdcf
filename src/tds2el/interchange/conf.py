"""A conf_file from the geometry of another program."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tds2el import __version__
from tds2el.crystal.cell import CELL_OPTIONS
from tds2el.errors import InputError
from tds2el.experiment.geometry import Geometry
from tds2el.interchange.lab import Sweep, values_of
from tds2el.options import BY_NAME
from tds2el.output import now
from tds2el.settings import Experiment, experiment_from_values

_GROUPS = (
    ("Beam", ("lmbda", "beam_tilt_angle", "pol_degree", "normal_to_pol")),
    (
        "Detector",
        ("pixel_size", "dist", "det_origin_X", "det_origin_Y", "orientation_codes", "d1", "d2", "theta",
         "sensor_thickness", "sensor_mu"),
    ),
    ("Rotation: about e3, so that the goniometer's other angles are 0", ("phi", "angular_step")),
    ("Crystal: its orientation holds the goniometer's circles that rested in this sweep", ("r1", "r2", "r3")),
    ("Cell", CELL_OPTIONS),
)  # fmt: skip


def experiment_of(values: Mapping[str, object]) -> Experiment:
    """The experiment of imported values, with defaults for the rest; angular_step is 0 where it is not known."""
    defaults = {name: option.default for name, option in BY_NAME.items()}
    return experiment_from_values(defaults | {"angular_step": 0.0} | dict(values))


def conf_text(sweep: Sweep, source: str) -> str:
    """The text of a conf_file.

    Parameters
    ----------
    sweep : Sweep
    source : str
        Where the geometry is from, for the heading.

    Raises
    ------
    InputError
        If our parameters cannot express the sweep.
    """
    try:
        values = values_of(sweep)
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    row, column = Geometry(experiment_of(values)).direct_beam()
    lines = [f"# Geometry of {source}, imported by tds2el {__version__} on {now()}."]
    lines.append(f"# Direct beam at row {row:.2f}, column {column:.2f}: compare with the beam stop's shadow.")
    lines += [f"# Note: {remark}." for remark in sweep.remarks]
    lines += ["", "# Frames"]
    if sweep.prefix:
        lines += [f"images_prefix = {json.dumps(sweep.prefix)}", f"images_postfix = {json.dumps(sweep.postfix)}"]
    else:
        lines.append("# images_prefix, images_postfix: not known; give them here or in input.par")
    if sweep.first_number is not None and "phi" in values:
        lines.append(
            f"# phi below is that of the middle of frame number {sweep.first_number}, which must be the first."
        )
    for title, names in _GROUPS:
        lines += ["", f"# {title}"]
        for name in names:
            option = BY_NAME[name]
            if name in values:
                lines.append(_commented(f"{name} = {values[name]!r}", option.unit))
            elif option.needed or name in ("phi", "r1", "r2", "r3"):
                lines.append(_commented(f"# {name} = ?", option.unit, "not known: fill in"))
            else:
                default = list(option.default) if isinstance(option.default, tuple) else option.default
                lines.append(_commented(f"{name} = {default!r}", option.unit, "not known, the default"))
    lines += [
        "",
        "# Still to give, here or in input.par: DeltaQ_min, DeltaQ_max, ascii_generators, save_to_file, collectSpots,",
        "# Temperature, density, and, as far as there are, filter_file and normalisation_file.",
    ]
    return "\n".join(lines) + "\n"


def _commented(assignment: str, *remarks: str) -> str:
    told = ", ".join(remark for remark in remarks if remark)
    return f"{assignment}  # {told}" if told else assignment
