"""Cron expressions and times, as people write them and as the server reads them."""

import argparse

import pytest

from components.kubeflow.schedule import (
    Schedule,
    add_schedule_options,
    schedule_from_options,
    translate_cron,
)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("*/15 8-18 * * 1-5", "0 */15 8-18 * * 1-5"),
        ("30 2 1,15 * ?", "0 30 2 1,15 * ?"),
        ("0 0 * jan-mar MON", "0 0 0 * jan-mar MON"),
        ("  0  3 * *   * ", "0 0 3 * * *"),
    ],
)
def test_five_fields_are_those_of_crontab_and_get_a_second(written, meant):
    assert translate_cron(written) == meant


def test_six_fields_are_passed_on():
    assert translate_cron("30 0 3 * * 0") == "30 0 3 * * 0"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("every day", "has 2 fields; give 5"),
        ("@daily", "has 1 fields"),
        ("0 0 3 * * * 2026", "has 7 fields"),
        ("60 3 * * *", "'60' is no minute, which is from 0 to 59"),
        ("0 24 * * *", "'24' is no hour"),
        ("0 3 0 * *", "'0' is no day of the month"),
        ("0 3 * 13 *", "'13' is no month"),
        ("0 3 * * 7", r"'7' is no day of the week, which is from 0 to 6 \(0 is Sunday\)"),
        ("0 3 * mon *", "'mon' is no month"),
        ("5-1 3 * * *", "'5-1' is no minute"),
        ("*/0 3 * * *", r"'\*/0' is no minute"),
        ("0 3,, * * *", "'' is no hour"),
        ("? 3 * * *", r"'\?' is no minute"),
    ],
)
def test_what_the_server_would_not_understand_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        translate_cron(text)


def parsed(*words: str) -> Schedule | None:
    parser = argparse.ArgumentParser()
    add_schedule_options(parser)
    return schedule_from_options(parser.parse_args(words))


def test_schedule_by_default_has_one_run_at_once_and_no_end():
    assert parsed("--schedule", "0 3 * * *") == Schedule("0 0 3 * * *", None, None, 1, False)
    assert parsed() is None


def test_times_are_sent_in_utc():
    words = ("--not-before", "2026-12-01T01:00:00+01:00", "--not-after", "2027-01-01T00:00:00Z")
    found = parsed("--schedule", "0 3 * * *", *words, "--max-concurrency", "10", "--no-catchup")
    assert found == Schedule(
        "0 0 3 * * *", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z", 10, True
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--not-before", "tomorrow"), "--not-before tomorrow is not a time with its zone"),
        (("--not-after", "2026-12-01T00:00:00"), "is not a time with its zone, such as"),
        (
            ("--not-before", "2026-12-01T00:00:00Z", "--not-after", "2026-12-01T00:00:00Z"),
            "--not-after is not later than --not-before",
        ),
        (("--max-concurrency", "0"), "--max-concurrency 0 is not a number from 1 to 10"),
        (("--max-concurrency", "11"), "--max-concurrency 11 is not a number from 1 to 10"),
    ],
)
def test_times_and_numbers_that_the_server_would_refuse_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parsed("--schedule", "0 3 * * *", *words)


@pytest.mark.parametrize(
    "words",
    [
        *(("--not-before", "x"), ("--not-after", "x"), ("--max-concurrency", "1")),
        *(("--no-catchup",), ("--version", "v"), ("--pipeline", "p")),
    ],
)
def test_without_a_schedule_its_options_are_refused(words):
    with pytest.raises(ValueError, match=f"{words[0]} needs --schedule"):
        parsed(*words)
