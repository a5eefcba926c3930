import io
import sys

from components.process.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_a_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(3, "images") as bar:
        assert "| 0/3 [00:00<?, ? images/s]" in sys.stderr.getvalue()
        bar.add(3)
        assert bar.done == 3
