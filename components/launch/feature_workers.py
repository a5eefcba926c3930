"""How many workers embed the test images: it decides the shape of a graph before it is compiled.

With one, the graph is as it is in pipeline.py: a task embeds, and the next one scores. With several
the parts that they embed are joined between the two.
"""

import argparse
from collections.abc import Mapping
from typing import Any

from components.launch.graph import Graph
from san_core.checked_json import read_json

PARAMETER = "feature_workers"
MOST_WORKERS = 1000


def worker_names(count: int) -> list[str]:
    """So many workers, as extract_features is told which it is.

    Raises:
        ValueError: there cannot be so many.
    """
    if not 1 <= count <= MOST_WORKERS:
        raise ValueError(f"{PARAMETER} is {count}: it must be 1 to {MOST_WORKERS:,}")
    return [f"{number}/{count}" for number in range(count)]


def graph_of_count(graph: Graph, count: int | None) -> Graph:
    """A graph for so many workers; for one where it is not said.

    Raises:
        ValueError: there cannot be so many.
    """
    workers = worker_names(1 if count is None else count)
    return graph if len(workers) == 1 else graph.with_feature_workers(workers)


def shape_graph(
    graph: Graph, values: Mapping[str, Any], options: argparse.Namespace
) -> tuple[Graph, dict[str, Any]]:
    """A graph for as many workers as are asked for, and the values without what it does not take.

    Args:
        graph: the graph for one.
        values: of a preset or of a former run.
        options: the words of `--param`, which count more; a number is replaced by the workers.

    Raises:
        ValueError: there cannot be so many.
    """
    chosen = dict(values)
    given = [word for word in options.param if word.partition("=")[0] == PARAMETER]
    if len(given) > 1:
        raise ValueError(f"parameter {PARAMETER} is given twice")
    if given:
        options.param = [word for word in options.param if word not in given]
        chosen[PARAMETER] = _parse(given[0])
    workers = chosen.pop(PARAMETER, 1)
    if type(workers) is int:
        workers = worker_names(workers)
    if workers == worker_names(1):
        return graph, chosen
    return graph.with_feature_workers(workers), {**chosen, PARAMETER: workers}


def _parse(word: str) -> int | list[Any]:
    """What a word of `--param` says: a number, or a list of workers.

    Raises:
        ValueError: it is neither.
    """
    text = word.partition("=")[2]
    try:
        found = read_json(text, object, where=PARAMETER)
    except ValueError:
        found = None
    if type(found) is int or isinstance(found, list):
        return found
    raise ValueError(
        f'parameter {PARAMETER}: {text!r} is neither a number nor a list, such as ["0/2", "1/2"]'
    )
