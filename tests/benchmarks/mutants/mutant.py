"""A mutant, and those that are known to be equivalent."""

import json
from pathlib import Path
from typing import NamedTuple

# Mutants that no test can tell from the code: module, line before and after, without the comment
# that may end it, and why.
EQUIVALENT = Path(__file__).with_name("equivalent.json")


class Mutant(NamedTuple):
    """One defect.

    Attributes:
        module: path of the module from the root
        line: number of the first line that differs
        before: that line, without white space around it
        after: what it has become
        code: the whole module with the defect
    """

    module: str
    line: int
    before: str
    after: str
    code: str


def equivalent_mutants() -> list[dict[str, str]]:
    """What `equivalent.json` lists."""
    listed: list[dict[str, str]] = json.loads(EQUIVALENT.read_text("utf-8"))
    return listed


def without_comment(line: str) -> str:
    """A line of formatted code without the comment that ends it."""
    return line.partition("  # ")[0]
