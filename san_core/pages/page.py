"""The look of every HTML page: one self-contained file, without scripts or external resources.

A page is a title and sections, a section is a heading, a sentence and a body made of the pieces
here: tables, figures, images. All text is escaped unless it is `Markup` already. Equal content
gives equal bytes: figures carry no date and no random ids.
"""

import base64
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import jinja2
import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from san_core.images import pixels
from san_core.images.pixels import Pixels

# Okabe and Ito's colours, told apart by colour-blind readers, darkest first.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK = "#1f2933"
FAINT = "#c9d1d9"


class Section(NamedTuple):
    """A part of a page: heading, body and, between them, a sentence that explains the body."""

    heading: str
    body: Markup
    lead: str = ""


def render_page(title: str, sections: Iterable[Section], *, subtitle: str = "") -> str:
    """A whole HTML document."""
    return render_template(
        "pages/page.html.jinja", title=title, subtitle=subtitle, sections=list(sections)
    )


def render_template(template: str, **context: Any) -> Markup:
    """A template of this package, named by its path in it, with everything unsafe escaped.

    Raises:
        jinja2.UndefinedError: the template uses a name that is not given.
    """
    return Markup(_environment().get_template(template).render(**context))


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("san_core", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str = "",
    strong: int | None = None,
    text: bool = False,
) -> Markup:
    """A table whose first column names the row; the others are figures, set right.

    Args:
        header: the column titles; the first may be empty. If all are empty, there is no header row.
        rows: cells, shown as `str` does.
        caption: what the table says, below it.
        strong: index of a row to be set in bold.
        text: the cells are words, not figures: set left and broken where they are long.

    Raises:
        ValueError: a row has more or fewer cells than the header.
    """
    rows = [list(row) for row in rows]
    for i, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"table row {i} has {len(row)} cells under {len(header)} columns")
    return render_template(
        "pages/table.html.jinja",
        header=header,
        rows=rows,
        caption=caption,
        strong=strong,
        text=text,
    )


def bullet_list(lines: Iterable[str]) -> Markup:
    """Lines as a list with a dot before each; empty if there are none."""
    items = Markup("").join(Markup("<li>{}</li>").format(line) for line in lines)
    return Markup("<ul>{}</ul>").format(items) if items else Markup()


def with_note(text: str, note: str) -> Markup:
    """The content of a cell with a softer line under it; without a note, the text alone."""
    return Markup("{}<small>{}</small>").format(text, note) if note else Markup(escape(text))


def image_tag(image: Pixels, *, alt: str, lossless: bool = False) -> Markup:
    """An `<img>` holding an image (H, W, 3) RGB: as JPEG, or as PNG where texels must be exact.

    `alt` describes it.
    """
    kind = "png" if lossless else "jpeg"
    data = pixels.encode_png(image) if lossless else pixels.encode_jpeg(image, quality=85)
    return _img_tag(f"image/{kind}", data, alt=alt, size=(image.shape[1], image.shape[0]))


def figure_tag(figure: Figure, *, alt: str) -> Markup:
    """An `<img>` holding a matplotlib figure as SVG, the same bytes for the same figure.

    Make the figure as `matplotlib.figure.Figure()` in `own_look`, not with pyplot, which keeps
    global state. Ids of one image cannot clash with those of another figure on the page.
    """
    buffer = io.BytesIO()
    with own_look():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    width, height = (round(96 * inches) for inches in figure.get_size_inches())
    return _img_tag("image/svg+xml", buffer.getvalue(), alt=alt, css="figure", size=(width, height))


@contextmanager
def own_look() -> Iterator[None]:
    """Within the block, or a decorated function, the user's matplotlibrc is ignored."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "san", "svg.fonttype": "path"})
        yield


def _img_tag(kind: str, data: bytes, *, alt: str, size: tuple[int, int], css: str = "") -> Markup:
    named = Markup(' class="{}"').format(css) if css else ""
    return Markup('<img{} src="data:{};base64,{}" width="{}" height="{}" alt="{}">').format(
        named, kind, base64.b64encode(data).decode("ascii"), *size, alt
    )


def image_grid(rows: Sequence[Sequence[Markup]], *, captions: Sequence[str]) -> Markup:
    """Images side by side, a column for each caption: say photograph, texture, decoded texture.

    Raises:
        ValueError: a row has more or fewer images than there are captions.
    """
    for i, row in enumerate(rows):
        if len(row) != len(captions):
            raise ValueError(f"image row {i} has {len(row)} images under {len(captions)} captions")
    return render_template("pages/gallery.html.jinja", rows=rows, captions=captions)


def add_axes(figure: Figure) -> Axes:
    """The one axes of a figure, in the look of the pages: no box, a faint grid, soft ink."""
    made = figure.add_subplot()
    made.spines[["top", "right"]].set_visible(False)
    made.spines[["left", "bottom"]].set_color(FAINT)
    made.grid(color=FAINT, linewidth=0.6)
    made.set_axisbelow(True)
    made.tick_params(colors=INK, labelsize=10.5, length=0)
    for axis in (made.xaxis, made.yaxis):
        axis.label.set(color=INK, fontsize=11)
    return made


def add_legend(axes: Axes, **place: Any) -> None:
    """The legend of axes, on white so that the grid does not run through its words."""
    axes.legend(
        **place, facecolor="white", edgecolor="none", framealpha=0.9, fontsize=10, labelcolor=INK
    )


@own_look()
def history_figure(
    history: Sequence[Mapping[str, Any]],
    name: str,
    *,
    label: str,
    band: tuple[str, str] | None = None,
) -> Figure:
    """The curve of one value over the epochs of a training, on its own scale.

    Several of them, each through `figure_tag`, stand side by side where the page is wide enough.

    Args:
        history: a record per epoch, each with its "epoch". A figure absent from a record, or None,
            was not measured then.
        name: the figure to draw.
        label: what the vertical axis shows, with its unit.
        band: the figures of the lower and the upper edge of a band around the line.

    Raises:
        ValueError: there is no history, or the figure is in no record.
    """
    if not history:
        raise ValueError("there is no history to draw: no epoch has ended")
    measured = [record for record in history if record.get(name) is not None]
    if not measured:
        known = sorted({key for record in history for key in record})
        raise ValueError(f"no '{name}' in the history; it has {', '.join(known)}")
    figure = Figure(figsize=(5.2, 3.0), layout="constrained")
    panel = add_axes(figure)
    panel.plot(
        [record["epoch"] for record in measured],
        [record[name] for record in measured],
        color=COLOURS[0],
        marker="o" if len(measured) < 30 else "",  # a lone epoch is a point, not a line
        markersize=3.5,
        label=name,
    )
    if band is not None:
        edged = [record for record in history if all(edge in record for edge in band)]
        epochs, low, high = ([r[key] for r in edged] for key in ("epoch", *band))
        panel.fill_between(epochs, low, high, color=COLOURS[0], alpha=0.15, linewidth=0)
    panel.set_xlabel("epoch")
    panel.set_ylabel(label)
    panel.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    return figure


def line_colours(n: int) -> list[str]:
    """Colours for n lines of one figure."""
    return [COLOURS[i % len(COLOURS)] for i in range(n)]
