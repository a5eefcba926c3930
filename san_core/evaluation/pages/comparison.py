"""A page that sets evaluations beside each other: settings, figures, CMC curves and queries.

A column is one run, or several runs that differ only in their seed. Its figures are then means,
with the standard deviation over seeds. Differences are to the first column.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from san_core.evaluation.pages import curves
from san_core.evaluation.pages.figures import is_share, number_in_words
from san_core.images import pixels
from san_core.pages import page
from san_core.pages.page import Section

QUERIES_PER_GROUP = 6
RANKED_SHOWN = 10  # gallery images of a query, a column
THUMBNAIL_SIZE = (160, 80)  # rows and columns
_QUERIES_LEAD = (
    "One row per run: the nearest gallery images. ✓ solid green: the same person. ✗ dashed red: "
    "another person."
)


class RankedName(NamedTuple):
    """A gallery image in the list of a query: its file, and whether it shows the same person."""

    image: str
    is_right: bool


class QueryResult(NamedTuple):
    """A run's result for a query: person, average precision, and the nearest gallery images."""

    person: str
    precision: float
    first_rank: int
    found: Sequence[RankedName]


class Evaluated(NamedTuple):
    """One run: its figures by name, CMC curve, and queries by the name of their image."""

    figures: Mapping[str, float]
    cmc: Sequence[float]
    queries: Mapping[str, QueryResult]


class Column(NamedTuple):
    """One run, or several that differ only in their seed.

    Attributes:
        name: its name; that of the first of several runs.
        settings: the settings in which the columns differ, in words, by name.
        runs: at least one.
    """

    name: str
    settings: Mapping[str, str]
    runs: Sequence[Evaluated]

    def values(self, figure: str) -> list[float]:
        """A figure of every run; empty unless all have it."""
        found = [run.figures[figure] for run in self.runs if figure in run.figures]
        return found if len(found) == len(self.runs) else []

    def precision(self, query: str) -> float:
        """The average precision of a query, or its mean over the runs."""
        return fmean(run.queries[query].precision for run in self.runs)


def comparison_page(
    columns: Sequence[Column], *, read: Callable[[str], bytes] | None, why_no_queries: str = ""
) -> str:
    """The page: one HTML document with everything in it.

    Args:
        columns: two or more, or one of several runs; the others are compared with the first.
        read: reads the bytes of an image by its name; None if the runs share no images.
        why_no_queries: a sentence that says why there are no queries to show.
    """
    sections = [
        Section(
            "Scores",
            figures_table(columns),
            f"Differences are relative to {columns[0].name}." if len(columns) > 1 else "",
        ),
        Section("Settings", _settings_table(columns), "Only settings that differ are shown."),
        _cmc_section(columns),
        *_query_sections(columns, read, why_no_queries),
    ]
    return page.render_template(
        "evaluation/pages/comparison.html.jinja",
        title="Runs compared",
        subtitle=" against ".join(_heading(column) for column in columns),
        sections=[section for section in sections if section.body],
        top_k=RANKED_SHOWN,
    )


def figure_names(columns: Sequence[Column]) -> list[str]:
    """The figures of all columns, in the order in which they first occur."""
    return list(dict.fromkeys(n for c in columns for run in c.runs for n in run.figures))


def figure_cell(name: str, column: Column, first: Column) -> tuple[str, str]:
    """A figure of a column in words, and its difference to the first column; or empty."""
    values, base = column.values(name), first.values(name)
    if not values:
        return "–", ""
    scale = 100 if is_share(name) else 1
    told = _number(scale * fmean(values), name)
    if len(values) > 1 and stdev(values):
        told += f" ± {_number(scale * stdev(values), name)}"
    difference = scale * (fmean(values) - fmean(base)) if base else 0.0
    if not difference:
        return told, ""
    return told, f"{'+' if difference > 0 else '−'}{_number(abs(difference), name)}"


def _number(value: float, name: str) -> str:
    return f"{value:.1f}" if is_share(name) else number_in_words(value)


def figures_table(columns: Sequence[Column]) -> Markup:
    """A table with a row per figure and a column per column, with the difference to the first."""
    rows = [
        [name, *(page.with_note(*figure_cell(name, one, columns[0])) for one in columns)]
        for name in figure_names(columns)
    ]
    caption = "Rank-k, mAP and mINP in per cent, their differences in points."
    if any(len(column.runs) > 1 for column in columns):
        caption += " Means over seeds ± standard deviation."
    return page.table(["", *(_heading(one) for one in columns)], rows, caption=caption)


def _heading(column: Column) -> str:
    count = len(column.runs)
    return f"{column.name} ({count} seeds)" if count > 1 else column.name


def _settings_table(columns: Sequence[Column]) -> Markup:
    names = list(dict.fromkeys(name for column in columns for name in column.settings))
    rows = [[name, *(one.settings.get(name, "–") for one in columns)] for name in names]
    if not rows:
        return Markup()
    return page.table(["", *(_heading(one) for one in columns)], rows, text=True)


def _cmc_section(columns: Sequence[Column]) -> Section:
    """The curves in one figure; for several seeds their mean."""
    cmcs = {_heading(one): _mean_curve(one) for one in columns}
    firsts = "; ".join(f"{name}: {curve[0]:.1%} at rank 1" for name, curve in cmcs.items())
    return Section(
        "Cumulative matching characteristic",
        page.figure_tag(curves.cmc_figure(cmcs), alt=f"CMC curves. {firsts}"),
        "The share of queries with a correct match among the first k gallery images, over k.",
    )


def _mean_curve(column: Column) -> NDArray[np.float64]:
    length = min(len(run.cmc) for run in column.runs)
    mean: NDArray[np.float64] = np.mean([run.cmc[:length] for run in column.runs], axis=0)
    return mean


def common_queries(columns: Sequence[Column]) -> list[str]:
    """The queries that every run has scored, in the order of the first run."""
    runs = [run for column in columns for run in column.runs]
    return [name for name in runs[0].queries if all(name in run.queries for run in runs)]


def choose_queries(columns: Sequence[Column]) -> dict[str, list[str]]:
    """Up to six queries of each kind: at even steps of precision, and the largest gains and losses.

    No query is shown twice.
    """
    first, names = columns[0], common_queries(columns)
    groups = {}
    for other in columns[1:]:
        gains = {name: other.precision(name) - first.precision(name) for name in names}
        ordered = sorted(names, key=lambda name: (-gains[name], name))
        lost = sorted((n for n in names if gains[n] < 0), key=lambda name: (gains[name], name))
        groups[f"Gained most: {other.name}"] = [n for n in ordered if gains[n] > 0]
        groups[f"Lost most: {other.name}"] = lost
    groups["Representative queries"] = _at_even_steps(
        sorted(names, key=lambda name: (-first.precision(name), name))
    )
    shown: set[str] = set()
    chosen = {}
    for heading, found in groups.items():
        chosen[heading] = [name for name in found if name not in shown][:QUERIES_PER_GROUP]
        shown |= set(chosen[heading])
    return chosen


def _at_even_steps(names: Sequence[str]) -> list[str]:
    n = min(QUERIES_PER_GROUP, len(names))
    return [names[(2 * k + 1) * len(names) // (2 * n)] for k in range(n)]


class _ShownRow(NamedTuple):
    """A column's answer to a query."""

    name: str
    precision: str
    change: str
    first_rank: int
    images: list[tuple[Markup, bool]]


class _ShownQuery(NamedTuple):
    name: str
    person: str
    image: Markup
    rows: list[_ShownRow]


def _query_sections(
    columns: Sequence[Column], read: Callable[[str], bytes] | None, why: str
) -> list[Section]:
    if read is None:
        return [Section("Queries", page.bullet_list([why]))]
    chosen = {heading: names for heading, names in choose_queries(columns).items() if names}
    return [
        Section(heading, _queries(columns, names, read), "" if number else _QUERIES_LEAD)
        for number, (heading, names) in enumerate(chosen.items())
    ]


def _queries(
    columns: Sequence[Column], names: Sequence[str], read: Callable[[str], bytes]
) -> Markup:
    shown = [
        _ShownQuery(
            name,
            columns[0].runs[0].queries[name].person,
            _thumbnail(name, read, alt=f"query {name}"),
            [_shown_row(column, columns[0], name, read) for column in columns],
        )
        for name in names
    ]
    return page.render_template("evaluation/pages/compared.html.jinja", queries=shown)


def _shown_row(column: Column, first: Column, name: str, read: Callable[[str], bytes]) -> _ShownRow:
    """For several seeds the lists of the first are shown."""
    result = column.runs[0].queries[name]
    precision = column.precision(name)
    change = 100 * (precision - first.precision(name))
    return _ShownRow(
        column.name,
        f"{100 * precision:.1f}",
        "" if column is first or math.isclose(change, 0, abs_tol=0.05) else f"{change:+.1f}",
        result.first_rank,
        [
            (_thumbnail(one.image, read, alt=_verdict(rank, one)), one.is_right)
            for rank, one in enumerate(result.found[:RANKED_SHOWN], 1)
        ],
    )


def _verdict(rank: int, found: RankedName) -> str:
    return f"rank {rank}, {'right' if found.is_right else 'wrong'}: {found.image}"


def _thumbnail(name: str, read: Callable[[str], bytes], *, alt: str) -> Markup:
    image = pixels.decode(read(name), name=name)
    return page.image_tag(pixels.resize(image, THUMBNAIL_SIZE), alt=alt)
