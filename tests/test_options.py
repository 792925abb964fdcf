"""The table of options, the kinds of values, and the page made from them."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tds2el.errors import InputError
from tds2el.kinds import Option
from tds2el.options import BY_NAME, OPTIONS, TABLE, nearest_option, options_markdown
from tds2el.parfile import Variable

ZERO = Variable(0, 0, 0)
DOCUMENTED = """
conf_file filter_file images_prefix images_postfix ascii_generators normalisation_file
pixel_size dist lmbda beam_tilt_angle det_origin_X det_origin_Y d1 d2 theta theta_offset omega omega_offset alpha beta
kappa phi angular_step r1 r2 r3 orientation_codes pol_degree normal_to_pol AA BB CC aAA aBB aCC
DO_ELASTIC DeltaQ_max DeltaQ_min load_from_file save_to_file collectSpots file_maxima REPLICA_COLLECTION threshold
centering_file show_hkls fitSpots CGUESS Temperature density doMinimisation REPLICA nred ftol A_variables visSim
testSpot_N testSpot_beta testSpot_Niter ftols do_Minimisation transform_only variations
hkl_tolerance max_cell
centring output_folder frame_angle threshold_action scale relative_error device report
filter_ranges background_prefix background_postfix background_normalisation_file background_exposures background_scale
n_spots fit_centres baseline reject spot_filter fitted_curve threads check_md5
volume_shape volume_axes volume_limits volume_basis volume_origin volume_symmetrise microsteps every_nth_frame
maxima_file maxima_sigma maxima_threshold maxima_window maxima_min_pixels maxima_max_pixels
normalise_from header_key normalise_region normalisation_output
volume_file volume_memory volume_layers volume_layer_thickness
sensor_thickness sensor_mu sweeps
known expansion heat_capacity
profile_likelihood bootstrap
bragg_scale bragg_prefix bragg_postfix
bragg_normalisation_file bragg_attenuation
model dispersion spot_gradient internal_strain dispersion_terms
resolution mosaicity bandwidth pixel_response neighbours
"""


def resolve(name: str, value: object) -> object:
    return BY_NAME[name].resolve(value, "conf.par:7", Path("/data"))


def test_the_table_has_every_documented_name_and_no_other() -> None:
    assert sorted(BY_NAME) == sorted(DOCUMENTED.split())
    assert len(OPTIONS) == len({option.name for option in OPTIONS}) == sum(map(len, TABLE.values()))


def test_defaults() -> None:
    expected = {
        "DO_ELASTIC": 1,
        "doMinimisation": 0,
        "nred": 1,
        "ftol": 1e-5,
        "Temperature": 300,
        "density": 2.71,
        "REPLICA": 0,
        "REPLICA_COLLECTION": 0,
        "testSpot_N": 128,
        "testSpot_beta": 0.03,
        "testSpot_Niter": 100,
        "pol_degree": 1,
        "normal_to_pol": (0, 0, 1),
        "orientation_codes": 0,
        "threshold": None,
        "threshold_action": "frame",
        "scale": "auto",
        "relative_error": 0,
        "device": None,
        "CGUESS": None,
        "centring": None,
    }
    assert {name: BY_NAME[name].default for name in expected} == expected
    angles = "beam_tilt_angle d1 d2 theta theta_offset omega omega_offset alpha beta kappa phi r1 r2 r3"
    assert {BY_NAME[name].default for name in angles.split()} == {0}


@pytest.mark.parametrize("option", [o for o in OPTIONS if not o.needed], ids=lambda o: o.name)
def test_every_default_is_a_value_of_its_kind(option: Option) -> None:
    assert resolve(option.name, option.default) == option.default


@pytest.mark.parametrize(
    ("name", "value", "resolved"),
    [
        ("dist", 244, 244.0),
        ("orientation_codes", 7.0, 7),
        ("fitSpots", 1, True),
        ("doMinimisation", False, False),
        ("normal_to_pol", [0, -1, 0], (0.0, -1.0, 0.0)),
        ("collectSpots", [[1, 0, -2], (0, 3.0, 0)], ((1, 0, -2), (0, 3, 0))),
        ("CGUESS", "auto", "auto"),
        ("CGUESS", {"A11": [1, 0, 2], "A15": (-2, None, None)}, {"A11": (1, 0, 2), "A15": (-2, -math.inf, math.inf)}),
        ("CGUESS", {"A66": [1, 1, math.inf]}, {"A66": (1, 1, math.inf)}),
        ("threshold", 1000, 1000.0),
        ("threshold_action", "pixel", "pixel"),
        ("frame_angle", "header", "header"),
        ("device", "gpu", "GPU"),
        ("device", "NUMPY", "numpy"),
        ("device", "Portable Computing Language:0", "Portable Computing Language:0"),
        ("filter_file", "mask.edf", Path("/data/mask.edf")),
        ("filter_file", "../m.h5::/entry/mask", Path("/m.h5::/entry/mask")),
        ("load_from_file", None, None),
        ("images_prefix", "frames/", "/data/frames/"),
        ("images_prefix", "/elsewhere/f_", "/elsewhere/f_"),
        ("images_postfix", "", ""),
        ("visSim", 1, True),
        ("centering_file", None, None),
        ("centering_file", "first.h5", Path("/data/first.h5")),
        ("file_maxima", "tagged.h5", Path("/data/tagged.h5")),
        ("REPLICA_COLLECTION", 1, True),
        ("collectSpots", "auto", "auto"),
        ("filter_ranges", [[0, 9, "m.edf"]], ((0, 9, Path("/data/m.edf")),)),
        ("spot_filter", {"min_points": 100}, {"min_points": 100.0}),
        ("DO_ELASTIC", 0, False),
        ("volume_shape", 101, (101, 101, 101)),
        ("volume_shape", [101, 51.0, 1], (101, 51, 1)),
        ("volume_limits", [[-3, 3], (0, 1), [-0.5, 0.5]], ((-3.0, 3.0), (0.0, 1.0), (-0.5, 0.5))),
        ("volume_basis", [[1, 1, 0], [1, -1, 0], [0, 0, 1]], ((1.0, 1.0, 0.0), (1.0, -1.0, 0.0), (0.0, 0.0, 1.0))),
        ("volume_origin", [0, 0, 0], (0.0, 0.0, 0.0)),
        ("maxima_window", 11.0, 11),
        ("normalise_region", [[0, 9], (5, 7.0)], ((0, 9), (5, 7))),
        ("normalise_region", "quiet.edf", Path("/data/quiet.edf")),
        ("volume_layers", ["hk0", "h-1.5l", "hk0"], ("hk0", "h-1.5l")),
        ("volume_layers", [], ()),
        ("A_variables", [ZERO] * 14, None),
        ("A_variables", [ZERO, -1, *[ZERO] * 12], None),
    ],
)
def test_accepted(name: str, value: object, resolved: object) -> None:
    result = resolve(name, value)
    assert result == resolved
    assert type(result) is type(resolved)


def test_variations_are_corrections() -> None:
    listed = resolve("variations", {"r1": [-1, 2], "BB": "AA", "AA": Variable(0.01, -0.1, 0.1)})
    assert isinstance(listed, tuple)
    assert [(c.name, c.value, c.lower, c.upper, c.tied_to) for c in listed] == [
        ("r1", 0, -1, 2, None),
        ("BB", 0.01, -0.1, 0.1, "AA"),
        ("AA", 0.01, -0.1, 0.1, None),
    ]
    assert resolve("variations", {}) == ()
    assert resolve("variations", None) is None


def test_corrections_by_place_and_by_name_are_the_same() -> None:
    free = Variable(0, -0.1, 0.1)
    by_place = resolve("A_variables", [ZERO, ZERO, ZERO, free, -1, *[ZERO] * 9])
    by_name = resolve("A_variables", {"AA": free, "BB": "AA"})
    assert isinstance(by_place, tuple)
    assert isinstance(by_name, tuple)
    assert [c for c in by_place if c.free or c.tied_to] == list(by_name)
    assert [(c.name, c.free, c.tied_to) for c in by_name] == [("AA", True, None), ("BB", False, "AA")]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("dist", 0, "must be a positive number"),
        ("dist", "244", "must be a positive number"),
        ("dist", True, "must be a positive number"),
        ("dist", None, "must be a positive number"),
        ("theta", math.nan, "must be a finite number"),
        ("theta", math.inf, "must be a finite number"),
        ("theta", [1], "must be a finite number"),
        ("AA", -4.99, "must be a length from 0.1 to 10000"),
        ("aCC", 180, "must be an angle between 0 and 180"),
        ("angular_step", 0, "other than 0"),
        ("pol_degree", 1.5, "from 0 to 1"),
        ("normal_to_pol", (0, 0, 0), "three numbers, not all 0"),
        ("normal_to_pol", (0, 1), "three numbers"),
        ("orientation_codes", 8, "from 0 to 7"),
        ("orientation_codes", -1, "from 0 to 7"),
        ("orientation_codes", 1.5, "from 0 to 7"),
        ("orientation_codes", "0", "from 0 to 7, or None"),
        ("fitSpots", 2, "False or True"),
        ("fitSpots", "yes", "False or True"),
        ("fitSpots", None, "False or True"),
        ("Temperature", 0, "positive"),
        ("nred", 0, "from 1 to 1000000"),
        ("nred", math.inf, "from 1 to 1000000"),
        ("ftol", -1e-5, "positive"),
        ("relative_error", -0.01, "from 0 to 1"),
        ("DeltaQ_min", -0.1, "not below 0"),
        ("threshold", 0, "positive number, or None"),
        ("threshold_action", "both", '"frame" or "pixel"'),
        ("frame_angle", "name", 'None, "number" or "header"'),
        ("scale", 1, '"auto", "free" or "held"'),
        ("scale", [], '"auto", "free" or "held"'),
        ("device", "TPU", "platform:device"),
        ("device", ":0", "platform:device"),
        ("device", 0, "platform:device"),
        ("conf_file", "", "name of a file"),
        ("filter_file", 3, "name of a file or folder, or None"),
        ("save_to_file", "a\0b", "name of a file"),
        ("images_postfix", None, "must be a string"),
        ("collectSpots", [], "list of reflections"),
        ("collectSpots", "1 0 0", "list of reflections"),
        ("collectSpots", [[1, 0, 0], [1, 0]], "entry 2 must be three whole numbers"),
        ("collectSpots", [1, 0, 0], "entry 1 must be three whole numbers"),
        ("collectSpots", [[1, 0, 0.5]], "entry 1 must be three whole numbers"),
        ("collectSpots", [[1, 0, math.inf]], "entry 1 must be three whole numbers"),
        ("collectSpots", [[0, 0, 0]], "direct beam"),
        ("CGUESS", 3, '"auto" or None'),
        ("CGUESS", "start", '"auto" or None'),
        ("CGUESS", {"C11": [1, 0, 2]}, "'C11' is no elastic constant"),
        ("CGUESS", {"A21": [1, 0, 2]}, "'A21' is no elastic constant"),
        ("CGUESS", {"A17": [1, 0, 2]}, "'A17' is no elastic constant"),
        ("CGUESS", {11: [1, 0, 2]}, "11 is no elastic constant"),
        ("CGUESS", {"A11": 1}, "A11 must be [start, min, max]"),
        ("CGUESS", {"A11": [1, 2]}, "A11 must be [start, min, max]"),
        ("CGUESS", {"A11": [1, 2, 0]}, "A11 must be [start, min, max]"),
        ("CGUESS", {"A11": [1, math.nan, 2]}, "A11 must be [start, min, max]"),
        ("CGUESS", {"A11": [math.inf, 0, None]}, "A11 must be [start, min, max]"),
        ("CGUESS", {"A11": [None, 0, 2]}, "A11 must be [start, min, max]"),
        ("CGUESS", {"A11": [1, False, 2]}, "A11 must be [start, min, max]"),
        ("testSpot_N", 1, "at least 2"),
        ("testSpot_beta", -0.1, "not below 0"),
        ("testSpot_Niter", 0, "at least 1"),
        ("DO_ELASTIC", 2, "must be"),
        ("A_variables", [ZERO] * 13, "must have 14 entries (r1, r2, r3, AA"),
        ("A_variables", [1, *[ZERO] * 13], "r1 must be minimiser.Variable(value, min, max), or −n"),
        ("A_variables", [-1, *[ZERO] * 13], "entry 1 (r1) is -1, but there are only 0 places before it"),
        ("A_variables", [Variable(2, -1, 1), *[ZERO] * 13], "r1 starts at 2, outside its bounds -1 to 1"),
        ("A_variables", [Variable(0, 1, -1), *[ZERO] * 13], "r1 needs finite numbers with min <= max"),
        ("A_variables", {"r4": ZERO}, "'r4' cannot be corrected; what can is r1, r2"),
        ("A_variables", {"BB": "AA"}, "BB repeats 'AA', which is not among the corrections"),
        ("A_variables", {"BB": "AA", "AA": "BB"}, "BB is tied in a circle"),
        ("variations", 1, '{"r1": [min, max], …}, {} or None'),
        ("variations", {"r1": 0.1}, "r1 must be minimiser.Variable"),
        ("variations", {"r1": [1, 2]}, "r1 must be [min, max] of what is added"),
        ("variations", {"r1": [-1]}, "r1 must be [min, max] of what is added"),
        ("variations", {"pixel_size": [-1, 1]}, "'pixel_size' cannot be corrected"),
        ("hkl_tolerance", 0.6, "above 0 and not above 0.5"),
        ("max_cell", 0, "length from 0.1"),
        ("A_variables", 3, "must be a list of 14 entries, or a dict"),
        ("spot_filter", {"max_points": 1}, "'max_points' is no limit; what there is: min_points"),
        ("spot_filter", {"min_coverage": 2}, "min_coverage must be a number not below 0 and not above 1"),
        ("filter_ranges", [[5, 2, "m.edf"]], "0 <= first <= last"),
        ("filter_ranges", [[1, "m.edf"]], "entry 1 must be [first frame, last frame, name of a mask]"),
        ("maxima_window", 10, "odd whole number from 3 to 999"),
        ("maxima_window", 1, "odd whole number from 3 to 999"),
        ("normalise_region", [[0, 9]], "[[first row, last row]"),
        ("normalise_region", [[0, 9], [7, 5]], "columns must be 0 <= first <= last"),
        ("normalise_region", [[0, 1.5], [5, 7]], "rows must be two whole numbers"),
        ("baseline", "flat", '"constant" or "linear"'),
        ("background_scale", 1, '"monitor" or "free"'),
        ("reject", 0, "positive number, or None"),
        ("volume_shape", 0, "three whole numbers of at least 1, or one for all"),
        ("volume_shape", [101, 101], "three whole numbers of at least 1"),
        ("volume_shape", [101, 101, 1.5], "three whole numbers of at least 1"),
        ("volume_shape", 10_000, "more than 1e+11 voxels"),
        ("volume_axes", "xyz", '"hkl" or "cartesian"'),
        ("volume_limits", [[-1, 1]] * 2, "three pairs [min, max]"),
        ("volume_limits", [[-1, 1], [0, 0], [0, 1]], "entry 2 must be [min, max] with min < max"),
        ("volume_basis", [[1, 0, 0], [0, 1, 0], [0, 0, 0]], "entry 3 is 0 0 0"),
        ("volume_basis", [[1, 0, 0], [0, 1], [0, 0, 1]], "entry 2 must be three numbers"),
        ("volume_origin", None, "three numbers"),
        ("microsteps", 0, "from 1 to 1000"),
        ("every_nth_frame", 0, "at least 1"),
        ("volume_memory", 0, "positive number, or None"),
        ("volume_layers", "hk0", "a list of names of layers"),
        ("volume_layers", ["hk0", "h00"], "'h00' is no layer: write h, k, l and a number"),
        ("volume_layer_thickness", 0, "positive number, or None"),
    ],
)
def test_refused_with_name_value_and_place(name: str, value: object, says: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve(name, value)
    message = str(caught.value)
    assert message.startswith(f"conf.par:7: {name} = ")
    assert says in message
    assert "\n" not in message


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(ZERO),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3) | st.just("A11"), inner, max_size=2)
    ),
    max_leaves=8,
)


@given(st.sampled_from(OPTIONS), values)
def test_any_value_is_resolved_or_refused_with_one_line(option: Option, value: object) -> None:
    message = "conf.par:7: "
    try:
        option.resolve(value, "conf.par:7", Path("/data"))
    except InputError as refusal:
        message = str(refusal)
    assert message.startswith("conf.par:7: ")
    assert "\n" not in message


def test_the_nearest_option_is_suggested() -> None:
    assert nearest_option("collectspots") == "did you mean 'collectSpots'?"
    assert nearest_option("lambda_") == "did you mean 'lmbda'?"
    assert nearest_option("doMinimization") == "did you mean 'doMinimisation'?"
    assert nearest_option("xyzzy") == "docs/options.md lists the options"


def test_the_page_of_options_is_in_step_with_the_table() -> None:
    page = Path(__file__).parents[1] / "docs" / "options.md"
    assert page.read_text(encoding="utf-8") == options_markdown(), "run python -m tds2el.options > docs/options.md"
    assert all(f"`{name}`" in options_markdown() for name in DOCUMENTED.split())
