"""`python -m components compare RUN RUN ...`: a comparison of runs on one page.

python -m components compare demo demo-2
python -m components compare demo demo/history/1 --output changes.html
"""

import csv
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.command.once import OnceParser
from components.experiments.history import HISTORY_FOLDER
from components.experiments.record import Run, read_run, read_runs
from components.experiments.settings import value_in_words
from components.process.machine import shell_command
from components.process.messages import os_error_message, printable
from components.runner.store import Store
from components.storage.outputs import check_page_replaceable, write_file
from components.storage.places import written_path
from san_core.checked_json import read_json_file

if TYPE_CHECKING:
    from san_core.evaluation.pages.comparison import Evaluated, QueryResult, RankedName

# The recipes of a run: the network, and the step and artifact that has its recipe.
_RECIPES = {"SAN": ("train_san", "model"), "SAN-PG": ("train_san_pg", "generator")}
_TESTED_SPLITS = ("query", "gallery")


class _Group(NamedTuple):
    """Runs that differ only in their seed, in one column."""

    name: str
    runs: list[Run]


def compare_parser() -> OnceParser:
    """The parser of the command line."""
    parser = OnceParser(
        prog="python -m components compare",
        description="Compare runs on one page. Runs that differ only in their seed share a column,"
        " with mean and standard deviation.",
    )
    parser.add_argument(
        "run",
        nargs="+",
        metavar="RUN",
        help="name of a run, or NAME/history/N; the first is the base",
    )
    parser.add_argument(
        "--runs", metavar="FOLDER", default="runs", help="folder of all runs (default: runs)"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="file for the page (default: compare-*.html in --runs)"
    )
    return parser


def run_compare(words: Sequence[str]) -> int:
    """The command `compare`; returns the exit status."""
    from components.experiments.index import write_index

    parser = compare_parser()
    options = parser.parse_args(words)
    names = [name.strip("/") for name in options.run]
    if len(names) < 2 or len(set(names)) < len(names):
        parser.error("name two runs or more, each once")
    called = "-vs-".join(name.replace("/", "-") for name in names)
    try:
        runs = written_path(options.runs, option="--runs", kind="folder")
        output = runs / f"compare-{called}.html"
        if options.output is not None:
            output = written_path(options.output, option="--output", kind="file")
        check_page_replaceable(output)
        groups = seed_groups([_find_run(runs, name) for name in names])
        _write_comparison(groups, output)
        with Store.of_runs(runs).locked():
            write_index(runs)
    except ValueError as error:
        parser.error(printable(str(error)))
    except BrokenPipeError:
        raise
    except OSError as error:
        print(printable(f"compare: {os_error_message(error)}"), file=sys.stderr)
        return 1
    print(printable(str(output)))
    return 0


def _find_run(runs: Path, name: str) -> Run:
    """The run of a name, which must have a report.

    Raises:
        ValueError: there is no such run.
        FileNotFoundError: it has no report.
    """
    run = read_run(runs / name)
    if run is None:
        known = ", ".join(one.name for one in read_runs(runs)) or "none"
        raise ValueError(f"there is no run {name} in {runs}; runs there: {known}")
    if run.output("evaluate", "report") is None:
        again = shell_command("pipeline.py", "run", "--name", name)
        raise FileNotFoundError(f"run {name} has no report ({run.state}); `{again}` continues it")
    return run


def seed_groups(runs: Sequence[Run]) -> list[_Group]:
    """Groups of runs that differ only in their seed; other runs are groups of one.

    Runs with other code, or in another image, differ in more than the seed.
    """
    found: dict[str, list[Run]] = {}
    for run in runs:
        request, code = run.record.request, (run.record.commit, _runner(run), _image(run))
        others = {n: v for n, v in request.parameters.items() if n != "seed"}
        found.setdefault(repr((request.graph, *code, sorted(others.items()))), []).append(run)
    groups = []
    for members in found.values():
        seeds = {run.record.request.parameters.get("seed") for run in members}
        parts = [members] if len(seeds) == len(members) else [[run] for run in members]
        groups += [_Group(_called(part[0]), part) for part in parts]
    return groups


def _runner(run: Run) -> str:
    return run.record.request.runner


def _image(run: Run) -> str | None:
    """The image of a run's containers; None without containers."""
    return run.record.request.image if _runner(run) == "docker" else None


def _called(run: Run) -> str:
    """The name of a run, with the number of an earlier result."""
    former = f"{run.folder.parents[1].name} (history {run.name})"
    return printable(former if _is_former(run) else run.name)  # it stands in figures too


def _is_former(run: Run) -> bool:
    """Whether it is an earlier result of a run; a folder of all runs may be named history too."""
    return run.folder.parent.name == HISTORY_FOLDER and read_run(run.folder.parents[1]) is not None


def _write_comparison(groups: Sequence[_Group], output: Path) -> None:
    from san_core.evaluation.pages.comparison import (
        Column,
        common_queries,
        comparison_page,
        figure_cell,
        figure_names,
    )

    settings = _settings(groups)
    columns = [
        Column(group.name, settings[group.name], [_evaluated(run) for run in group.runs])
        for group in groups
    ]
    why = _why_no_queries(groups) or (
        "" if common_queries(columns) else "The runs have no scored query in common."
    )
    if why:
        page = comparison_page(columns, read=None, why_no_queries=why)
    else:
        with _images_of(groups) as read:
            page = comparison_page(columns, read=read)
    write_file(output, page.encode("utf-8", "backslashreplace"))  # so too names that are not UTF-8
    width = max(map(len, figure_names(columns)))
    for name in figure_names(columns):
        cells = (" ".join(figure_cell(name, one, columns[0])).rstrip() for one in columns)
        print(printable(f"{name:{width}}  " + "  ".join(f"{cell:>16}" for cell in cells)))


def _evaluated(run: Run) -> "Evaluated":
    """The content of a run's report."""
    from san_core.evaluation.pages.comparison import Evaluated

    figures = {n: float(v) for n, v in run.figures().items() if isinstance(v, int | float)}
    return Evaluated(figures, _report_content(run)["cmc"], _queries(_report(run)))


def _report(run: Run) -> Path:
    report = run.output("evaluate", "report")
    assert report is not None  # as `_find_run` has seen
    return report


def _report_content(run: Run) -> dict[str, Any]:
    return read_json_file(_report(run) / "report.json", dict[str, Any])


def _queries(report: Path) -> "dict[str, QueryResult]":
    """The scored queries, by image name; empty for a report of an older version.

    If several data sets were tested on and share a name, the first counts.
    """
    from san_core.data.records import named_person
    from san_core.evaluation.pages.comparison import QueryResult
    from san_core.evaluation.ranked_lists import QUERIES_FILE

    if not (report / QUERIES_FILE).is_file():
        return {}
    lists = _ranked_names(report)
    found: dict[str, QueryResult] = {}
    for row in _rows(report / QUERIES_FILE):
        if row["first_right_rank"] and row["query"] not in found:
            found[row["query"]] = QueryResult(
                named_person(row["person"]),
                float(row["average_precision"]),
                int(row["first_right_rank"]),
                lists.get(row["query"], []),
            )
    return found


def _ranked_names(report: Path) -> "dict[str, list[RankedName]]":
    """The nearest gallery images of each query, up to the first gap in their ranks."""
    from san_core.evaluation.pages.comparison import RankedName
    from san_core.evaluation.ranked_lists import RANKED_FILE

    lists: dict[str, list[RankedName]] = {}
    for row in _rows(report / RANKED_FILE):
        found = lists.setdefault(row["query"], [])
        if int(row["rank"]) == len(found) + 1:
            found.append(RankedName(row["image"], row["right"] == "1"))
    return lists


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _settings(groups: Sequence[_Group]) -> dict[str, dict[str, str]]:
    """The settings in which the groups differ, in words, by group."""
    told: dict[str, dict[str, str]] = {group.name: {} for group in groups}
    runs = [run for group in groups for run in group.runs]
    parameters = dict.fromkeys(name for run in runs for name in run.record.request.parameters)
    named: list[tuple[str, Callable[[Run], Any]]] = [
        *([("runs", _called)] if len(runs) > len(groups) else []),
        ("graph", lambda run: run.record.request.graph),
        ("commit", lambda run: run.record.commit[:12]),
        ("runner", _runner),
        ("image", _image),
        *((name, _parameter(name)) for name in parameters),
    ]
    recipes = {run.folder: _recipe_fields(run) for run in runs}
    fields = dict.fromkeys(name for each in recipes.values() for name in each)
    named += [(name, _recipe_field(recipes, name)) for name in fields]
    for name, value_of in named:
        values = {
            group.name: list(dict.fromkeys(value_in_words(value_of(run)) for run in group.runs))
            for group in groups
        }
        has_seeds = name == "seed" and any(len(found) > 1 for found in values.values())
        if len({tuple(found) for found in values.values()}) > 1 or has_seeds:
            for group, found in values.items():
                told[group][name] = ", ".join(found)
    return told


def _parameter(name: str) -> Callable[[Run], Any]:
    return lambda run: run.record.request.parameters.get(name)


def _recipe_field(recipes: Mapping[Path, Mapping[str, Any]], name: str) -> Callable[[Run], Any]:
    return lambda run: recipes[run.folder].get(name)


def _recipe_fields(run: Run) -> dict[str, Any]:
    """The fields of the recipes with which a run has trained."""
    found: dict[str, Any] = {}
    for whose, (step, artifact) in _RECIPES.items():
        folder = run.output(step, artifact)
        if folder is not None and (folder / "recipe.json").is_file():
            fields = read_json_file(folder / "recipe.json", dict[str, Any])["recipe"]
            found |= {f"{whose}: {name}": value for name, value in fields.items()}
    return found


def _why_no_queries(groups: Sequence[_Group]) -> str:
    """The reason why queries cannot be compared; empty if they can."""
    runs = [run for group in groups for run in group.runs]
    if len(groups) == 1:
        return "There is one column, as the runs differ only in their seed."
    digests = {_tested_digest(run) for run in runs}
    if len(digests - {None}) > 1:
        return "The runs were not tested on the same images, so their queries are not compared."
    if None in digests or _tested_set(runs) is None:
        return "The test images of a run no longer exist."
    return ""


def _tested_digest(run: Run) -> str | None:
    """A digest of the image set that a run was tested on; None if it is unknown.

    A report on given distances names no image set; then it is that of the run, unless the report is
    an earlier result.
    """
    from components.storage.staging import image_set_digest

    told: str | None = _report_content(run).get("provenance", {}).get("dataset")
    if told or _is_former(run):
        return told
    place = _set_at_hand(run)
    return image_set_digest(place) if place else None


def _tested_set(runs: Sequence[Run]) -> Path | None:
    """The image set that all runs were tested on; None if no run has it now."""
    from components.storage.staging import image_set_digest

    wanted = _tested_digest(runs[0])
    places = [place for run in runs if (place := _set_at_hand(run))]
    return next((place for place in places if image_set_digest(place) == wanted), None)


def _set_at_hand(run: Run) -> Path | None:
    """The present image set of a run; for an earlier result, that of its run."""
    now = read_run(run.folder.parents[1]) if _is_former(run) else run
    return now.output("prepare_reid", "reid") if now else None


@contextmanager
def _images_of(groups: Sequence[_Group]) -> Iterator[Callable[[str], bytes]]:
    """A function that returns the bytes of a common test image, by its name."""
    from components.storage.staging import open_image_set, shards_of_splits

    place = _tested_set([run for group in groups for run in group.runs])
    assert place is not None  # as `_why_no_queries` has seen
    with open_image_set(place, shards=shards_of_splits(place, _TESTED_SPLITS)) as images:
        records = {one.name: one for one in images.records_in_splits(*_TESTED_SPLITS)}
        yield lambda name: images.read(records[name])
