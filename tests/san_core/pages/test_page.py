"""The pieces pages are made of: escaped, self-contained, the same bytes every time."""

import base64
import re
from html.parser import HTMLParser

import jinja2
import matplotlib
import numpy as np
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure

from san_core.images import pixels
from san_core.pages import page
from san_core.pages.page import Section

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Outline(HTMLParser):
    """Follows the tags of a document and fails where one is not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.images = [], [], []

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    parsed.close()
    assert parsed.open == []
    return parsed


def drawn() -> Figure:
    figure = Figure(figsize=(2, 1))
    page.add_axes(figure).plot([0, 1], [0, 1], label="a line")
    return figure


def payload(tag: str) -> bytes:
    return base64.b64decode(re.search(r'base64,([^"]*)"', tag)[1])


def test_note_of_a_cell_is_escaped_and_may_be_absent():
    assert page.with_note("a<b", "c&d") == "a&lt;b<small>c&amp;d</small>"
    assert page.with_note("a<b", "") == "a&lt;b"


def test_a_page_has_its_sections_in_order_and_every_tag_closed():
    sections = [Section("First", Markup("<p>body</p>"), "A lead."), Section("Second", Markup(""))]
    text = page.render_page("Title", sections, subtitle="Sub")
    assert [tag for tag in outline(text).seen if tag in ("h1", "h2")] == ["h1", "h2", "h2"]
    assert re.search(r"Title.*Sub.*First.*A lead\..*<p>body</p>.*Second", text, re.DOTALL)


def test_all_text_is_escaped():
    evil = "<script>alert(1)</script>"
    table = page.table([evil, evil], [[evil, evil]], caption=evil)
    image = page.image_tag(np.zeros((2, 2, 3), np.uint8), alt='" onload="' + evil)
    grid = page.image_grid([[image]], captions=[evil])
    text = page.render_page(evil, [Section(evil, table + image + grid, evil)], subtitle=evil)
    parsed = outline(text)
    assert "script" not in parsed.seen
    assert all(set(image) == {"src", "width", "height", "alt"} for image in parsed.images)


def test_a_page_fetches_nothing():
    image = page.image_tag(np.zeros((2, 2, 3), np.uint8), alt="black")
    text = page.render_page("Title", [Section("S", image + page.figure_tag(drawn(), alt="a plot"))])
    assert not re.search(r"<script|<link|@import|url\(|https?:", text)
    assert all(image["src"].startswith("data:") for image in outline(text).images)


def test_lossless_images_come_back_texel_by_texel():
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3)).astype(np.uint8)
    tag = page.image_tag(image, alt="texture", lossless=True)
    np.testing.assert_array_equal(pixels.decode(payload(tag)), image)
    assert 'width="6" height="4" alt="texture"' in tag
    assert "image/jpeg" in page.image_tag(image, alt="photograph")


def test_matplotlibrc_of_a_person_changes_nothing():
    ours = page.figure_tag(history_figure(), alt="a plot")
    theirs = {"axes.facecolor": "black", "font.size": 30.0, "lines.linewidth": 9.0}
    with matplotlib.rc_context({**theirs, "savefig.facecolor": "red"}):
        assert page.figure_tag(history_figure(), alt="a plot") == ours
        assert matplotlib.rcParams["font.size"] == 30.0


def history_figure():
    return page.history_figure(HISTORY, "loss", label="the loss")


def test_equal_figures_give_equal_bytes_without_a_date():
    one, two = (page.figure_tag(drawn(), alt="a plot") for _ in range(2))
    assert one == two
    svg = payload(one).decode()
    assert svg.startswith("<?xml")
    assert "dc:date" not in svg


def test_a_table_names_rows_and_sets_one_in_bold():
    text = page.table(["", "mAP"], [["ours", 0.5], ["theirs", 0.4]], caption="Fractions.", strong=0)
    outline(text)
    assert '<tr class="strong"><th scope="row">ours</th><td>0.5</td></tr>' in text
    assert '<tr><th scope="row">theirs</th><td>0.4</td></tr>' in text
    assert "<caption>Fractions.</caption>" in text
    assert "thead" in text
    assert "thead" not in page.table(["", ""], [["Seed", "0"]])


def test_a_gallery_has_a_column_for_each_caption():
    image = Markup('<img src="data:," alt="">')
    text = page.image_grid([[image, image], [image, image]], captions=["photograph", "texture"])
    assert len(outline(text).images) == 4
    assert "repeat(2, max-content)" in text


HISTORY = [
    {"epoch": 1, "loss": 3.0, "psnr": None},
    {"epoch": 2, "loss": 2.0, "psnr": 20.0},
    {"epoch": 3, "loss": 1.5},
]


@pytest.mark.parametrize(
    ("name", "points"), [("loss", [[1, 3], [2, 2], [3, 1.5]]), ("psnr", [[2, 20]])]
)
def test_a_curve_draws_what_was_measured_when_it_was_measured(name, points):
    (axes,) = page.history_figure(HISTORY, name, label="a figure").axes
    (line,) = axes.lines
    assert (line.get_label(), line.get_xydata().tolist()) == (name, points)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "a figure")


def test_a_lone_epoch_is_drawn_as_a_point():
    (line,) = page.history_figure(HISTORY[:1], "loss", label="loss").axes[0].lines
    assert line.get_marker() == "o"


@pytest.mark.parametrize(
    ("history", "name", "message"),
    [
        ([], "loss", "there is no history to draw"),
        (HISTORY, "losss", "no 'losss' in the history; it has epoch, loss, psnr"),
    ],
)
def test_curves_of_nothing_are_refused(history, name, message):
    with pytest.raises(ValueError, match=message):
        page.history_figure(history, name, label="loss")


def test_a_page_has_a_dark_side_that_sets_every_colour_anew():
    style = page.render_page("Title", [])
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    assert re.findall(r"--[a-z]+(?=:)", light) == re.findall(r"--[a-z]+(?=:)", dark)
    outside = style.replace(light, "").replace(dark, "")
    assert not re.search(r"#[0-9a-f]{3,6}\b", outside)


def test_ragged_tables_and_galleries_are_refused():
    with pytest.raises(ValueError, match="table row 1 has 1 cells under 2 columns"):
        page.table(["", "mAP"], [["ours", 1], ["theirs"]])
    with pytest.raises(ValueError, match="image row 0 has 1 images under 2 captions"):
        page.image_grid([[Markup("")]], captions=["photograph", "texture"])


def test_a_template_that_misses_a_value_is_refused():
    with pytest.raises(jinja2.UndefinedError, match="'caption' is undefined"):
        page.render_template("pages/table.html.jinja", header=[], rows=[], strong=None, text=False)
