"""A command line on which no flag counts that is given a second time."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any


class OnceParser(argparse.ArgumentParser):
    """A parser that refuses a flag given twice, of which the last would count without a word.

    Flags that may be repeated are those that collect what they are given (`action="append"`).
    """

    def parse_known_args(  # type: ignore[override]  # typeshed has two overloads of it
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        """As of `argparse`, after a look at the words."""
        words = list(sys.argv[1:] if args is None else args)
        given = set[str]()
        for flag in (word.partition("=")[0] for word in words):
            action = self._option_string_actions.get(flag)
            if action is None or isinstance(action, argparse._AppendAction):
                continue
            if action.dest in given:
                self.error(f"argument {flag}: is given twice")
            given.add(action.dest)
        return super().parse_known_args(words, namespace)
