"""The page of a fit: what it says and in which order, and that nothing leaves or enters it."""

import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tds2el.errors import InputError
from tds2el.fit.beyond import Comparison
from tds2el.fit.read import NextOrderTable
from tds2el.fit.result import CorrectionTable, DispersionTable
from tds2el.view.page import typeset
from tds2el.view.pictures import Picture
from tds2el.view.report import report_html, write_report

VOID = {"meta", "link", "img", "br"}
NASTY = '<b>calcite & "co".par'


class Page(HTMLParser):
    """Elements of a page with attributes and text, in order; fails where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[int] = []
        self.feed(html)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes), []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_endtag(self, tag):
        assert self.elements[self._open.pop()][0] == tag

    def handle_data(self, data):
        for index in self._open:
            self.elements[index][2].append(data)

    def texts(self, tag: str) -> list[str]:
        return ["".join(text).strip() for name, _, text in self.elements if name == tag]

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes, _ in self.elements if name == tag]

    def table(self, caption: str) -> list[list[str]]:
        """Rows of the first table whose caption begins like this."""
        rows: list[list[str]] = []
        inside = False
        for name, _, text in self.elements:
            if name == "table":
                if inside:
                    break
                inside = "".join(text).startswith(f"\n{caption}")
            elif inside and name == "tr":
                rows.append([])
            elif inside and name in ("th", "td"):
                rows[-1].append("".join(text))
        assert rows, caption
        return rows


def png(width=300, height=200):
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    return file.getvalue()


def test_while_the_scale_is_held_ratios_come_first(make_fit):
    page = Page(report_html(make_fit(), []))
    rows = page.table("Elastic constants, working frame W, as ratios to A11")
    assert rows[0] == [
        "Constant",
        "Ratio to A11",
        "GPa if A11 = 147.1",
        "σ in %",
        "Status",
        "Start in GPa",
        "Bounds in GPa",
    ]
    assert rows[1] == ["A11", "1", "147.1", "", "held", "161.81", "0 to 500"]
    assert rows[2] == ["A33", "0.5799(58)", "85.30(85)", "1.0", "fitted", "93.83", "0 to 500"]
    assert rows[5][-1] == "none"
    assert rows[6] == ["A15", "−0.1400(14)", "−20.60(21)", "1.0", "fitted", "−22.66", "−300 to 300"]
    tensor = page.table("ratios to A11; x ∥ a*")
    assert tensor[3] == ["33", "0.3651(34)", "0.3651(34)", "0.5799(34)", "0", "0", "0"]
    assert page.table("Standard deviations, of the ratios to A11")[1] == ["A33", "0.0029", "0.0043", "0.0058"]
    assert page.table("Untextured polycrystal, ratios to A11")[1] == ["Bulk modulus", *["0.5000(50)"] * 3]
    assert "held: ratios to A11" in page.texts("dd")


def known(make_fit, **changes):
    constants = dataclasses.replace(
        make_fit().constants, held=None, scale="known", scale_in_words="known: frozen", **changes
    )
    return make_fit(constants=constants)


def test_with_a_known_scale_all_is_in_gpa(make_fit):
    html = report_html(known(make_fit), [])
    rows = Page(html).table("Elastic constants, working frame W")
    assert rows[0][:3] == ["Constant", "GPa", "σ in %"]
    assert rows[2][:2] == ["A33", "85.30(85)"]
    assert "atio to" not in html.replace("Ratio to the", "")


def test_beyond_the_elastic_limit_both_models_are_shown(make_fit):
    fit = make_fit()
    n = len(fit.spots.label)
    comparison = Comparison(
        names=["A33", "A44"],
        elastic=np.array([0.58, 0.23]),
        beyond=np.array([0.60, 0.2312]),
        sigma_elastic=np.array([0.002, 0.0005]),
        sigma_beyond=np.array([0.004, 0.0011]),
        shift=np.array([5.77, 1.22]),
        probability=3e-8,
        reference="A11",
    )
    dispersion = DispersionTable(
        ["T11_1111", "T11_2222"],
        np.array([-1200.0, 0.0]),
        np.array([310.0, np.nan]),
        np.array([False, True]),
        np.eye(1),
    )
    gradient, sigma = np.full((n, 3), 0.25), np.full((n, 3), 0.11)
    found = NextOrderTable(dispersion, gradient, sigma, None, None, comparison)
    page = Page(report_html(dataclasses.replace(fit, next_order=found), []))
    rows = page.table("The two models on the same points, as ratios to A11")
    assert rows[1] == ["A33", "0.5800(20)", "0.6000(40)", "+5.8", "2.00"]
    rows = page.table("Dispersion T, GPa Å² for q without 2π")
    assert rows[1:] == [["T11_1111", "−1200(310)", "fitted"], ["T11_2222", "0", "held: not determined"]]
    assert page.table("Gradients g of the amplitude, Å")[1][1:] == ["0.25(11)"] * 3
    assert any(text.startswith("The elastic limit is biased for these data") for text in page.texts("p"))
    assert "Beyond the elastic limit" not in Page(report_html(fit, [])).texts("h2")
    assert "Beyond the elastic limit" in page.texts("h2")


def test_corrections_have_a_table_and_their_course(make_fit):
    nan = np.nan
    found = CorrectionTable(
        names=["r1", "AA", "BB"],
        start=np.array([20.0, 4.99, 4.99]),
        correction=np.array([-0.1983, -0.0051, -0.0051]),
        sigma=np.array([0.002, 0.00012, nan]),
        lower=np.full(3, -1.0),
        upper=np.full(3, 1.0),
        status=["fitted", "fitted", "tied"],
        notes=(),
        moved=("r1", "AA"),
    )
    fit = make_fit()
    course = dataclasses.replace(fit.iterations, corrections=np.array([[-0.1, -0.004], [-0.1983, -0.0051]]))
    page = Page(report_html(dataclasses.replace(fit, corrections=found, iterations=course), []))
    rows = page.table("Corrections in the units of the options")
    assert rows[1][:5] == ["r1", "20", "−0.1983(20)", "19.8017(20)", "fitted"]
    assert page.table("Corrections after each pass") == [
        ["Pass", "r1", "AA"],
        ["1", "−0.100000", "−0.004000"],
        ["2", "−0.198300", "−0.005100"],
    ]


def test_a_simulation_has_no_error_bars(make_fit):
    nothing = np.full(6, np.nan)
    fit = known(make_fit, simulated=True, fitted=[], sigma=nothing)
    page = Page(report_html(fit, []))
    assert page.table("Elastic constants as given")[2] == ["A33", "85.3"]
    assert "Error bars" not in page.texts("h2")
    assert "Simulation" in page.texts("dt")


def test_warnings_come_first(make_fit):
    page = Page(report_html(make_fit(warnings=["the fit did not converge"]), []))
    assert page.texts("h2")[:3] == ["Warnings", "Data and run", "Elastic constants"]
    assert "the fit did not converge" in page.texts("li")
    assert "Warnings" not in Page(report_html(make_fit(), [])).texts("h2")


def test_a_constant_at_its_bound_stands_out(make_fit):
    constants = dataclasses.replace(make_fit().constants, status=["held", "at upper bound", *["fitted"] * 4])
    html = report_html(make_fit(constants=constants), [])
    assert '<td class="alarm">at upper bound</td>' in html


def test_what_was_run_on_which_data(make_fit):
    facts = Page(report_html(make_fit(), [])).texts("dd")
    for text in (
        "/data/calcite/input.par, /data/calcite/harvest.h5",
        "900, /data/a_….cbf",
        "759\u202f790 in 8 spots",
        "120 masked",
        "tds2el input.par --set nred=1",
        "numpy, double precision",
        "a = 4.99 Å, b = 4.99 Å, c = 17.061 Å, α = 90°, β = 90°, γ = 120°",
    ):
        assert text in facts


def test_settings_are_sorted_by_whether_they_are_defaults(make_fit):
    html = report_html(make_fit(), [])
    own, default = html.split("Options at their defaults")
    for name, part in (("DeltaQ_max", own), ("nred", default), ("pol_degree", default)):
        assert f'<th scope="row">{name}</th>' in part
        assert html.count(f'<th scope="row">{name}</th>') == 1


def test_the_table_of_spots_carries_the_values_to_sort_by(make_fit):
    fit = make_fit()
    html = report_html(fit, [])
    body = html.split('<table class="sortable">')[1].split("<tbody>")[1].split("</tbody>")[0]
    rows = [[float(x) for x in re.findall(r'data-value="([^"]+)"', row)] for row in body.splitlines() if row]
    table = np.array(rows)
    np.testing.assert_array_equal(table[:, 1:4], fit.spots.hkl)
    np.testing.assert_allclose(table[:, 5], fit.spots.points)
    np.testing.assert_allclose(table[:, 6], fit.spots.factor)
    np.testing.assert_allclose(table[:, 8], fit.spots.chi2_per_dof)


def test_spots_left_out_and_below_the_floor_are_marked(make_fit):
    spots = make_fit().spots
    left_out = np.arange(8) == 2
    fit = make_fit(spots=dataclasses.replace(spots, left_out=left_out, below_floor=0.25 * spots.points * left_out))
    page = Page(report_html(fit, []))
    rows = page.table("Intensity = f S + b")
    assert rows[0][-2:] == ["Below floor, %", "Remark"]
    assert rows[3][-2:] == ["25", "left out"]
    assert rows[4][-2:] == ["0", ""]
    assert "8, 1 left out" in page.texts("dd")


def test_pictures_are_inside_with_captions_and_words_for_who_cannot_see_them(make_fit):
    pictures = [
        Picture("Residuals", "How to read it.", "", png(1500, 750)),
        Picture("Profiles", "Data and fit.", "1 0 −4: χ²/dof 1.01", png(), one_spot=True),
        Picture("Profiles", "Data and fit.", "2 0 −4: χ²/dof 1.02", png(), one_spot=True),
    ]
    page = Page(report_html(make_fit(), pictures))
    images = page.attributes("img")
    assert [image["alt"] for image in images] == [
        "Residuals: How to read it.",
        "Profiles: 1 0 −4: χ²/dof 1.01",
        "Profiles: 2 0 −4: χ²/dof 1.02",
    ]
    assert (images[0]["width"], images[0]["height"]) == ("960", "480")
    assert page.texts("figcaption") == ["How to read it.", "1 0 −4", "2 0 −4"]
    assert page.texts("h3")[-1] == "Residuals"
    assert "Profiles: 2 pictures" in page.texts("summary")


def test_the_page_loads_nothing(make_fit):
    page = Page(report_html(make_fit(warnings=["see https://example.org"]), [Picture("A", "B", "C", png())]))
    for _, attributes, _ in page.elements:
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:", "#")), address
    assert not re.search(r"url\(|@import", page.texts("style")[0])
    assert not re.search(r"fetch|XMLHttpRequest|import", page.texts("script")[0])
    policy = page.attributes("meta")[1]
    assert policy["http-equiv"] == "Content-Security-Policy"
    assert policy["content"].startswith("default-src 'none'; img-src data:")


def test_texts_of_the_user_do_not_become_html(make_fit):
    constants = dataclasses.replace(make_fit().constants, scale_in_words=NASTY)
    fit = make_fit(
        constants=constants,
        inputs=[NASTY],
        warnings=[NASTY],
        notes=[NASTY],
        point_group=NASTY,
        settings={NASTY: NASTY, "conf_file": NASTY},
        report=NASTY,
        program=make_fit().program | {"device": NASTY, "command_line": f"tds2el '{NASTY}'"},
    )
    html = report_html(fit, [Picture(NASTY, NASTY, NASTY, png())])
    page = Page(html)
    assert "b" not in {name for name, _, _ in page.elements}
    assert page.texts("title") == [f"Elastic constants, {NASTY}"]
    assert page.texts("li").count(NASTY) == 2
    assert page.attributes("img")[0]["alt"] == f"{NASTY}: {NASTY}"


def test_headings_links_and_names_fit_together(make_fit):
    page = Page(report_html(make_fit(warnings=["!"]), [Picture("A", "B", "C", png())]))
    names = [attributes["id"] for _, attributes, _ in page.elements if "id" in attributes]
    assert len(names) == len(set(names))
    links = [attributes["href"][1:] for attributes in page.attributes("a")]
    assert [f"#{name}" for name in links] == [f"#{name}" for name in names if name != "warnings"]
    assert [attributes["aria-labelledby"] for attributes in page.attributes("section")] == names
    assert page.attributes("html") == [{"lang": "en"}]
    assert len(page.texts("h1")) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("-20.60(21)", "−20.60(21)"),
        ("3.21(15)e-06", "3.21(15) × 10⁻⁶"),
        ("2.500(10)e+07", "2.500(10) × 10⁷"),
        ("1e-05", "1 × 10⁻⁵"),
        ("nan", "nan"),
        ("fitted", "fitted"),
    ],
)
def test_numbers_are_typeset(text, shown):
    assert typeset(text) == shown


def test_a_page_that_cannot_be_written_is_a_clear_error(make_fit, tmp_path):
    with pytest.raises(InputError, match=r"nowhere/report\.html cannot be written"):
        write_report(tmp_path / "nowhere" / "report.html", make_fit(), [])
    write_report(tmp_path / "report.html", make_fit(), [])
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
