"""Signals that ask to stop, as whoever waits for them hears them."""

import signal

import pytest

from components.process.signals import (
    STOP_SIGNALS,
    Terminated,
    defer_stop,
    hear_interrupt,
    raise_terminated,
    signal_handler,
)


@pytest.fixture(autouse=True)
def signals_as_in_a_shell():
    former = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["SIGTERM", "SIGHUP"]
)
def test_signal_ends_what_runs_with_its_own_status(number, status):
    with pytest.raises(Terminated) as stop, signal_handler(raise_terminated, *STOP_SIGNALS):
        signal.raise_signal(number)
    assert (stop.value.name, stop.value.status) == (number.name, status)
    assert signal.getsignal(number) == signal.SIG_DFL


def test_second_signal_does_not_interrupt_what_the_first_has_begun():
    ended = []

    def work():
        try:
            signal.raise_signal(signal.SIGHUP)
        finally:
            for number in (signal.SIGHUP, signal.SIGTERM):
                signal.raise_signal(number)
                ended.append(number)

    with pytest.raises(Terminated), signal_handler(raise_terminated, *STOP_SIGNALS):
        work()
    assert ended == [signal.SIGHUP, signal.SIGTERM]


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_that_is_deferred_interrupts_nothing_and_is_known(number):
    with defer_stop() as asked:
        assert not asked()
        signal.raise_signal(number)
        assert asked()
        assert asked.number == number


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_interrupt_is_heard_unless_it_is_ignored(before):
    former = signal.signal(signal.SIGINT, before)
    try:
        hear_interrupt(signal.default_int_handler)
        heard = signal.getsignal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, former)
    assert heard == (before or signal.default_int_handler)


def test_hang_up_that_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with defer_stop() as asked:
        signal.raise_signal(signal.SIGHUP)
        assert not asked()
        signal.raise_signal(signal.SIGTERM)
        assert asked()
