"""A .csv from any program: UTF-8 with or without BOM, any line ends, blanks, quotes."""

import csv
import io
from collections.abc import Collection, Iterator

from san_core.data.tree import Tree

_OTHER_SEPARATORS = {";": "a semicolon (;)", "\t": "a tab", "|": "a bar (|)"}


class Table:
    """The rows of a .csv in a tree, each with the line it ends on, as an editor counts them.

    Attributes:
        place: how errors call the file.
        columns: what the first row names, without blanks around.
    """

    def __init__(self, tree: Tree, name: str) -> None:
        """Read a table and its first row.

        Raises:
            ValueError: it is not in UTF-8, or a quote in its first row is never closed.
        """
        self.place = f"{tree.place}/{name}"
        try:
            text = tree.read(name).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.place} is not in UTF-8: {error}") from error
        # newline=None: a lone CR, as older spreadsheets write it, ends a line too.
        lines = io.StringIO(text, newline=None)
        self._reader = csv.DictReader(lines, skipinitialspace=True, strict=True)
        try:
            self.columns = [column.strip() for column in self._reader.fieldnames or []]
        except csv.Error as error:
            raise self._parse_error(error) from error
        self._reader.fieldnames = self.columns

    def describe_first_row(self, wanted: Collection[str]) -> str:
        """The first row as it was read, and why it may lack the wanted columns."""
        told = f"its first row is read as {', '.join(map(repr, self.columns)) or 'nothing'}"
        for mark, called in _OTHER_SEPARATORS.items():
            if any(mark in column for column in self.columns):
                return f"{told}: {called} separates its columns, and a comma should"
        if not set(wanted) & set(self.columns) and set(wanted) & {c.lower() for c in self.columns}:
            return f"{told}: columns are named in small letters"
        return told

    def rows(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The line and the cells of every row that is not blank.

        A row with too many cells has the key None; in one with too few, cells are None.

        Raises:
            ValueError: the table ends within quotes, or the like.
        """
        try:
            for row in self._reader:
                yield self._reader.line_num, row
        except csv.Error as error:
            raise self._parse_error(error) from error

    def _parse_error(self, error: csv.Error) -> ValueError:
        return ValueError(f"{self.place} line {self._reader.reader.line_num}: {error}")
