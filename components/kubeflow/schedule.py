"""Schedules of a pipeline: cron expressions as Kubeflow Pipelines reads them.

The server's cron has six fields; the first is seconds. It reads five fields as the first five of
six: `0 3 * * *` would be minute 3 of every hour. So five fields, which mean minute, hour, day,
month and day of the week everywhere else, get a second of 0 before them.
"""

import argparse
import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

# Name, lowest and highest value of each field on the server.
_FIELDS = (
    *(("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day of the month", 1, 31)),
    *(("month", 1, 12), ("day of the week", 0, 6)),
)
_NAMES = {
    "month": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "day of the week": ("sun", "mon", "tue", "wed", "thu", "fri", "sat"),
}
_PART = r"(?:\*|\?|(\w+)(?:-(\w+))?)(?:/([1-9]\d*))?"
# The server's own limit.
MOST_AT_ONCE = 10


class Schedule(NamedTuple):
    """The times at which a recurring run starts.

    Attributes:
        cron: six fields: second, minute, hour, day of the month, month, day of the week
        start: RFC 3339 time before which no run starts; None for no limit
        end: RFC 3339 time after which no run starts; None for no limit
        max_concurrency: maximum number of its runs at a time
        no_catchup: whether to skip runs that were missed while the server was down
    """

    cron: str
    start: str | None = None
    end: str | None = None
    max_concurrency: int = 1
    no_catchup: bool = False


def add_schedule_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a schedule to a command line."""
    group = parser.add_argument_group("schedule", "run an uploaded version at set times")

    def add(flag: str, text: str, **options: Any) -> None:
        group.add_argument(flag, help=text, **options)

    add("--schedule", "the five fields of crontab, or six, with seconds first", metavar="CRON")
    add("--pipeline", "uploaded pipeline (default: san-GRAPH)", metavar="NAME")
    add("--version", "uploaded version (default: the newest)", metavar="NAME")
    add(
        "--not-before",
        "no run starts before this time, such as 2026-12-01T00:00:00Z",
        metavar="TIME",
    )
    add("--not-after", "no run starts after this time", metavar="TIME")
    add(
        "--max-concurrency",
        "maximum number of runs at a time, 1 to 10 (default: 1)",
        type=int,
        metavar="N",
    )
    add("--no-catchup", "skip runs that were missed while the server was down", action="store_true")


def schedule_from_options(options: argparse.Namespace) -> Schedule | None:
    """The schedule on a command line, if there is one.

    Raises:
        ValueError: an option is invalid, or needs --schedule.
    """
    if options.schedule is None:
        for given in (
            *("pipeline", "version", "not_before", "not_after", "max_concurrency", "no_catchup"),
        ):
            if getattr(options, given) not in (None, False):
                raise ValueError(f"--{given.replace('_', '-')} needs --schedule")
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
        ValueError: there are more or fewer, or a field is invalid.
    """
    fields = text.split()
    if len(fields) not in (5, 6):
        raise ValueError(
            f"--schedule {text!r} has {len(fields)} fields; give 5 (minute, hour, day, month, "
            "day of the week), such as '0 3 * * *', or 6 with the second before them"
        )
    fields = ["0"] * (6 - len(fields)) + fields
    for field, (name, lowest, highest) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if not _is_part(part, name, lowest, highest):
                raise ValueError(
                    f"--schedule {text!r}: {part!r} is no {name}, which is from {lowest} to "
                    f"{highest}" + (" (0 is Sunday)" if name == "day of the week" else "")
                )
    return " ".join(fields)


def _is_part(part: str, name: str, lowest: int, highest: int) -> bool:
    """Whether a part of a field is valid: 5, 1-5, */10 or mon-fri."""
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
