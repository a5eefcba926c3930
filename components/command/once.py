"""A command line that refuses a flag given twice, and its exit status."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class OnceParser(argparse.ArgumentParser):
    """A parser that refuses a flag given twice; argparse would silently use the last value.

    Flags that collect values (`action="append"`) may be repeated. Flags cannot be abbreviated, so
    that the same flag has no other spelling.
    """

    def __init__(self, *, allow_abbrev: bool = False, **options: Any) -> None:
        """As in `argparse`; parsers of subcommands are of this class too."""
        super().__init__(allow_abbrev=allow_abbrev, **options)

    def parse_known_args(  # type: ignore[override]  # typeshed has two overloads of it
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As in `argparse`, after a check of the words."""
        words = list(sys.argv[1:] if args is None else args)
        given = set[str]()
        for flag in (word.partition("=")[0] for word in words):
            action = self._option_string_actions.get(flag)
            if action is None or isinstance(action, argparse._AppendAction):
                continue
            if action.dest in given:
                self.error(f"argument {flag}: given twice")
            given.add(action.dest)
        return super().parse_known_args(words, namespace)


def status_of(stop: SystemExit) -> int:
    """The exit status of a command that argparse ends, having written its help or its message."""
    return stop.code if isinstance(stop.code, int) else 2
