"""The ranked list of each query: the nearest gallery images, and the first right answer.

The list includes the first right answer even if it ranks below the end of the list.

Shapes: Q queries, G gallery images, K places of a list.
"""

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from san_core.data.records import LabelledImage, camera_name, person_name
from san_core.evaluation.labels import Ids, Labels
from san_core.evaluation.protocol import PROTOCOLS, ranking_problem
from san_core.evaluation.ranking import Ranking

RANKS_LISTED = 20
RANKED_FILE = "ranked.csv"
QUERIES_FILE = "queries.csv"
_RANKED_COLUMNS = ("query", "rank", "image", "distance", "right")
_QUERY_COLUMNS = (
    *("query", "person", "camera", "right_answers", "first_right_rank", "average_precision"),
)

# Gives the distances of a query to some gallery images, all by their positions.
Measure = Callable[[int, Ids], NDArray[np.float64]]


class RankedImage(NamedTuple):
    """A gallery image in the list of a query: its rank, from 1, and its position in the gallery."""

    rank: int
    place: int
    distance: float
    is_right: bool


class RankedLists:
    """The lists of all queries of a ranking, each made when it is asked for.

    Attributes:
        ranking: with the top of each query.
    """

    def __init__(
        self, ranking: Ranking, measure: Measure, *, query: Labels, gallery: Labels
    ) -> None:
        """Lists of a ranking; query and gallery are the labels that scored it."""
        self.ranking, self._measure = ranking, measure
        self._problem = ranking_problem(query, gallery, PROTOCOLS[ranking.protocol])

    def of_query(self, i: int, *, count: int | None = None) -> list[RankedImage]:
        """The first `count` images, or all of the top, and the first right answer if it is lower.

        i: the query's position.
        """
        top = self.ranking.top[i, :count]
        places, is_right = top[top >= 0], self.ranking.right[i, :count][top >= 0]
        found = [
            RankedImage(rank, int(place), float(distance), bool(right))
            for rank, (place, distance, right) in enumerate(
                zip(places, self._measure(i, places), is_right, strict=True), 1
            )
        ]
        first = int(self.ranking.first_rank[i])
        return [*found, self._nearest_right(i, first)] if first > len(found) else found

    def _nearest_right(self, i: int, rank: int) -> RankedImage:
        """Ties rank in gallery order, which is the order here."""
        answers = self._right_answers(i)
        distances = self._measure(i, answers)
        nearest = int(np.argmin(distances))
        return RankedImage(rank, int(answers[nearest]), float(distances[nearest]), True)

    def _right_answers(self, i: int) -> Ids:
        """The gallery images of a query's person that the protocol keeps."""
        problem = self._problem
        group = problem.group[i]
        members = problem.members[problem.start[group] : problem.start[group + 1]]
        cameras = problem.gallery_camera[members]
        left = (cameras != problem.query_camera[i]) & (cameras != problem.barred[i])
        answers: Ids = members[left].astype(np.int64)
        return answers


class ListedTarget(NamedTuple):
    """A test set: its lists, and the records of its queries and gallery."""

    lists: RankedLists
    query: Sequence[LabelledImage]
    gallery: Sequence[LabelledImage]


def write_ranked_lists(folder: Path, targets: Iterable[ListedTarget]) -> None:
    """Write `ranked.csv`, a row per image of a list, and `queries.csv`, a row per query."""
    targets = list(targets)
    _write_table(folder / RANKED_FILE, _RANKED_COLUMNS, _ranked_rows(targets))
    _write_table(folder / QUERIES_FILE, _QUERY_COLUMNS, _query_rows(targets))


def _write_table(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def _ranked_rows(targets: Iterable[ListedTarget]) -> Iterator[Sequence[object]]:
    for lists, query, gallery in targets:
        for i, asked in enumerate(query):
            for rank, place, distance, is_right in lists.of_query(i):
                name = gallery[place].name
                yield asked.name, rank, name, f"{distance:.6g}", int(is_right)


def _query_rows(targets: Iterable[ListedTarget]) -> Iterator[Sequence[object]]:
    """For a skipped query, the rank and the average precision are empty."""
    for ranking, query in ((each.lists.ranking, each.query) for each in targets):
        for i, asked in enumerate(query):
            first = int(ranking.first_rank[i])
            precision = f"{ranking.average_precision[i]:.6g}" if first else ""
            who = asked.name, person_name(asked), camera_name(asked)
            yield *who, int(ranking.num_right[i]), first or "", precision
