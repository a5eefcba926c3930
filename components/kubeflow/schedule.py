"""When a pipeline runs again and again: cron expressions as Kubeflow Pipelines reads them.

The server's cron has six fields, the first of them seconds, and it takes five as the first five of
these: `0 3 * * *` would be minute 3 of every hour. So five fields, which everybody writes and means
as minute, hour, day, month and day of the week, get a second of 0 before them.
"""

import argparse
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

# Name, lowest and highest value of each field as the server has them.
_FIELDS = (
    *(("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31)),
    *(("month", 1, 12), ("day of the week", 0, 6)),
)
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of the week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_PART = r"(?:\*|\?|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?"
# As the server has them.
MOST_AT_ONCE = 10


class Schedule(NamedTuple):
    """When a recurring run starts.

    Attributes:
        cron: six fields: second, minute, hour, day of the month, month, day of the week
        start: RFC 3339 time before which it does not start; None for at once
        end: and after which it does not start; None for never
        max_concurrency: how many of its runs go on side by side
        no_catchup: whether runs that were missed, as the server was away, are left out
    """

    cron: str
    start: str | None = None
    end: str | None = None
    max_concurrency: int = 1
    no_catchup: bool = False


def add_schedule_options(parser: argparse.ArgumentParser) -> None:
    """Add when a pipeline runs again and again to a command line."""
    group = parser.add_argument_group("again and again", "an uploaded version, at set times")

    def add(flag: str, text: str, **options: Any) -> None:
        group.add_argument(flag, help=text, **options)

    add("--schedule", "five fields, as of crontab, or the server's six", metavar="CRON")
    add("--pipeline", "uploaded pipeline (default: san-GRAPH)", metavar="NAME")
    add("--version", "uploaded version (default: the newest)", metavar="NAME")
    add("--not-before", "such as 2026-12-01T00:00:00Z", metavar="TIME")
    add("--not-after", "likewise", metavar="TIME")
    add("--max-concurrency", "runs side by side, 1 to 10 (default: 1)", type=int, metavar="N")
    add("--no-catchup", "leave out what was missed while the server was away", action="store_true")


def schedule_from_options(options: argparse.Namespace) -> Schedule | None:
    """When to run, if a command line says it.

    Raises:
        ValueError: it is not understood, or something is asked for that needs --schedule.
    """
    if options.schedule is None:
        for given in (
            *("pipeline", "version", "not_before", "not_after", "max_concurrency", "no_catchup"),
        ):
            if getattr(options, given) not in (None, False):
                raise ValueError(f"--{given.replace('_', '-')} is for --schedule")
        return None
    start = _parse_time("--not-before", options.not_before)
    end = _parse_time("--not-after", options.not_after)
    if start and end and end <= start:
        raise ValueError("--not-after is not later than --not-before")
    most = 1 if options.max_concurrency is None else options.max_concurrency
    if not 1 <= most <= MOST_AT_ONCE:
        raise ValueError(f"--max-concurrency {most} is not a number from 1 to {MOST_AT_ONCE}")
    return Schedule(
        translate_cron(options.schedule),
        _as_text(start),
        _as_text(end),
        max_concurrency=most,
        no_catchup=options.no_catchup,
    )


def translate_cron(text: str) -> str:
    """The server's six fields: five get a second of 0, six stay.

    Raises:
        ValueError: there are more or fewer, or a field is not understood.
    """
    fields = text.split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"--schedule {text!r} has {len(fields)} fields; 5 are right (minute, hour, day, month, "
            "day of the week), such as '0 3 * * *', or 6 with the second before them"
        )
    fields = ["0"] * (6 - len(fields)) + fields
    for field, (name, lowest, highest) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if not _is_part(part, name, lowest, highest):
                raise ValueError(
                    f"--schedule {text!r}: {part!r} is no {name}, which goes from {lowest} to "
                    f"{highest}" + (" (0 is Sunday)" if name == "day of the week" else "")
                )
    return " ".join(fields)


def _is_part(part: str, name: str, lowest: int, highest: int) -> bool:
    """Whether the server understands a part of a field: 5, 1-5, */10 or mon-fri."""
    match = re.fullmatch(_PART, part, re.ASCII)
    if not match or (part.startswith("?") and not name.startswith("day")):
        return False
    first, last = (_value(word, name, lowest) for word in match.group(1, 2))
    ends = [end for end in (first, last) if end is not None]
    return all(lowest <= end <= highest for end in ends) and ends == sorted(ends)


def _value(word: str | None, name: str, lowest: int) -> int | None:
    """The number that a word stands for; -1 for none."""
    if word is None or word.isdigit():
        return None if word is None else int(word)
    names = _NAMES.get(name, ())
    return names.index(word.lower()) + lowest if word.lower() in names else -1


def _parse_time(flag: str, text: str | None) -> datetime | None:
    """A time with its zone."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise ValueError(f"{flag} {text} is not a time with its zone, such as 2026-12-01T00:00:00Z")
    return time.astimezone(UTC)


def _as_text(time: datetime | None) -> str | None:
    return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")
