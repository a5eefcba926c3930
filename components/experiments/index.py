"""`runs/index.html`: every run with its metrics and settings, and links to all its pages."""

import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup, escape

from components.experiments.history import former_results
from components.experiments.listing import age_in_words, size_in_words, sizes_of
from components.experiments.record import Run, read_runs
from components.experiments.settings import differing_parameters, value_in_words
from components.runner.screen import figure_in_words
from components.storage.outputs import write_file
from san_core.pages import page
from san_core.pages.page import Section

INDEX_FILE = "index.html"
COMPARISONS = "compare-*.html"  # beside it
_MOST_FIGURES = 5


def write_index(runs: Path) -> None:
    """Write the index of the runs in a folder."""
    text = index_page(runs)  # names of folders need not be UTF-8
    write_file(runs / INDEX_FILE, text.encode("utf-8", "backslashreplace"))


def index_page(runs: Path) -> str:
    """The page with links to everything in a folder of runs."""
    found = read_runs(runs)
    sections = [
        Section("Runs", _runs_table(runs, found), "Newest first."),
        Section(
            "Settings",
            _settings_table(found),
            "Settings in which the runs differ.",
        ),
        Section("Comparisons", _comparisons(runs), "Written by python -m components compare."),
        Section(
            "Earlier results", _former(runs, found), "Replaced by newer runs of the same name."
        ),
    ]
    count = "1 run" if len(found) == 1 else f"{len(found)} runs"
    return page.render_page("Runs", [one for one in sections if one.body], subtitle=count)


def _runs_table(runs: Path, found: Sequence[Run]) -> Markup:
    """A row per run: metrics, then state, time and size; its links under its name."""
    figures = {run.name: run.figures() for run in found}
    shown = list(dict.fromkeys(name for each in figures.values() for name in each))[:_MOST_FIGURES]
    sizes = sizes_of(found)
    rows = [
        [
            _name_with_links(runs, run),
            *(_cell(name, figures[run.name].get(name)) for name in shown),
            _state_with_commit(run),
            page.with_note(_when(run), f"{_duration(run)}{size_in_words(sizes[run.name])}"),
        ]
        for run in found
    ]
    return page.table(["", *shown, "state", "started"], rows) if rows else Markup()


def _when(run: Run) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(run.record.started))


def _duration(run: Run) -> str:
    """The duration of a run, as the start of a phrase; empty if it has not ended."""
    seconds = run.record.ended - run.record.started
    return f"took {age_in_words(seconds)}, " if run.record.ended else ""


def _name_with_links(runs: Path, run: Run) -> Markup:
    pages = [
        _link(runs, file, task) for task, files in reversed(run.pages().items()) for file in files
    ]
    links = Markup(" · ").join([*pages, _link(runs, run.folder, "files")])
    return Markup("{}<small>{}</small>").format(run.name, links)


def _state_with_commit(run: Run) -> Markup:
    return page.with_note(run.state, run.record.commit[:12])


def _settings_table(found: Sequence[Run]) -> Markup:
    """The parameters that differ, a row each, with a column per run; empty if none differs."""
    if len(found) < 2:
        return Markup()
    rows = [
        [name, *(value_in_words(run.record.request.parameters.get(name)) for run in found)]
        for name in differing_parameters(found)
    ]
    graphs = [run.record.request.graph for run in found]
    if len(set(graphs)) > 1:
        rows.insert(0, ["graph", *graphs])
    return page.table(["", *(run.name for run in found)], rows, text=True) if rows else Markup()


def _comparisons(runs: Path) -> Markup:
    found = sorted(runs.glob(COMPARISONS))
    called = {one: one.stem.removeprefix("compare-").replace("-vs-", " against ") for one in found}
    return page.bullet_list(_link(runs, one, name) for one, name in called.items())


def _former(runs: Path, found: Sequence[Run]) -> Markup:
    lines = []
    for run in found:
        for former in reversed(former_results(run.folder)):
            figures = list(former.figures().items())[:_MOST_FIGURES]
            told = ", ".join(f"{name} {figure_in_words(name, value)}" for name, value in figures)
            pages = [
                _link(runs, file, task)
                for task, files in reversed(former.pages().items())
                for file in files
            ]
            links = Markup(" · ").join([*pages, _link(runs, former.folder, "files")])
            lines.append(Markup("{}, {}: {} {}").format(run.name, _when(former), told, links))
    return page.bullet_list(lines)


def _cell(name: str, value: float | str | bool | None) -> str:
    return "–" if value is None else figure_in_words(name, value)


def _link(runs: Path, target: Path, text: str) -> Markup:
    """A link from the index to a file or folder beside it."""
    place = quote(target.relative_to(runs).as_posix(), errors="surrogateescape")
    return Markup('<a href="{}">{}</a>').format(place, escape(text))
