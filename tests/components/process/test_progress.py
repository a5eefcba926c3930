import io
import logging
import sys

import pytest

from components.process import progress
from components.process.progress import WATCHED_VARIABLE, Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(3, "images") as bar:
        assert "| 0/3 [00:00<?, ? images/s]" in sys.stderr.getvalue()
        bar.add(3)
        assert bar.done == 3


@pytest.mark.parametrize(("watched", "lines"), [("", [60, 120]), ("1", [*range(10, 121, 10)])])
def test_a_log_gets_a_line_a_minute_and_more_where_it_is_watched(
    monkeypatch, caplog, watched, lines
):
    clock = [0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setenv(WATCHED_VARIABLE, watched)
    caplog.set_level(logging.INFO)
    with Progress(1000, "images") as bar:
        for clock[0] in range(1, 125):
            bar.add()
    assert [int(line.partition("/")[0]) for line in caplog.messages] == lines
