"""Signs of life that the processes of one step give each other, so that a lost node ends the rest.

A thread of each process writes every two seconds into the key-value store that torchrun keeps on
node 0, and reads what the others have written. It goes on while one node stages or decodes and the
others wait. Another thread judges: it ends this process, in one line that names who is lost, where
the main thread waits inside torch and can hear nothing.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import count
from typing import Any, NamedTuple

from components.process.failure import report_failure
from components.process.messages import name_uris, os_error_message
from components.process.scratch import remove_open_folders
from components.process.signals import Terminated
from components.process.torchrun import (
    has_several_nodes,
    local_process_count,
    node_rank,
    process_count,
    rank,
)
from san_core.checked_json import read_json

SECONDS_BETWEEN_BEATS = 2.0
# Without a new beat for so long, a process counts as lost. A cable may be out for less.
SECONDS_UNTIL_LOST = 30.0
# The same on one node, which has no cable: torchrun kills the others 30 seconds after a loss.
SECONDS_UNTIL_LOST_HERE = 12.0
# How long after this process another may begin to give signs: its pod may have to wait for a place.
SECONDS_TO_JOIN = 300.0
# If two processes meet the same error within this time, each tells it as its own.
SECONDS_FOR_OWN_ERROR = 3.0
# For the store there is one connection: TCP bears a cable that is out for some seconds.
STORE_TIMEOUT = timedelta(minutes=15)
SECONDS_FOR_LAST_SIGN = 5.0
MOST_LAST_WORDS = 1000  # characters

_BEATING: list["Heartbeats"] = []  # those of this process: one at most


class _Sign(NamedTuple):
    """What a process writes into the store."""

    beat: int
    who: str
    has_left: bool = False
    last_words: str = ""  # why it ends, of one that has failed or was stopped
    was_stopped: bool = False


class _Seen(NamedTuple):
    """The last sign of a process, and when it first stood there, by this machine's clock."""

    sign: _Sign
    since: float


def describe_self() -> str:
    """This process as the others name it: by its node, where there are several."""
    if has_several_nodes():
        return f"node {node_rank()} ({socket.gethostname()})"
    return f"process {rank() + 1}"


def advise(*, keeps_state: bool) -> str:
    """What to do when a process is lost, in words."""
    if keeps_state:
        return "Run again: training goes on from its checkpoint"
    return "Run again: training begins anew, as no checkpoint was kept"


@contextmanager
def beating(step: str, *, keeps_state: bool) -> "Iterator[Heartbeats]":
    """Within the block this process gives signs of life and watches those of the others.

    It tells them as which it leaves: with what error, or done. Within another such block nothing
    begins anew, and the signs end with the inner block.

    Args:
        step: its name.
        keeps_state: whether there is a checkpoint that training can go on from.
    """
    is_outer = not _BEATING
    if is_outer:
        _BEATING.append(Heartbeats(step, keeps_state=keeps_state))
        _BEATING[0].start()
    beats = _BEATING[0]
    try:
        yield beats
    except BaseException as error:
        beats.leave(_last_words(error), was_stopped=isinstance(error, Terminated))
        raise
    finally:
        if is_outer:
            _BEATING.clear()
    beats.leave()


@contextmanager
def beating_in_company(step: str, *, keeps_state: bool) -> Iterator[None]:
    """As `beating`, from before inputs are fetched on; nothing for a process that is alone."""
    if process_count() == 1:
        yield
        return
    with beating(step, keeps_state=keeps_state):
        yield


def _last_words(error: BaseException) -> str:
    """Why this process ends, as the others are to tell it."""
    if isinstance(error, Terminated):
        return f"stopped by {error.name}"
    told = os_error_message(error) if isinstance(error, OSError) else str(error)
    return name_uris(told or type(error).__name__)[:MOST_LAST_WORDS]


class Heartbeats:
    """The signs of life of this process, and what is known of the others."""

    def __init__(self, step: str, *, keeps_state: bool) -> None:
        self._step, self._who = step, describe_self()
        self._patience = SECONDS_UNTIL_LOST if has_several_nodes() else SECONDS_UNTIL_LOST_HERE
        self._advice = advise(keeps_state=keeps_state)
        self._last_words, self._was_stopped, self._started = "", False, time.monotonic()
        self._seen: dict[int, _Seen] = {}
        self._last_contact: float | None = None  # with the store
        self._leaving, self._decided = threading.Event(), threading.Event()
        self._verdict = ""
        self._speaking = threading.Lock()  # never released by the thread that ends this process
        self._main_speaks = False
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._beat, self._watch)
        ]

    def start(self) -> None:
        """Begin to beat and to watch."""
        # Whoever leaves at once waits some seconds for its last sign: too few to import torch too.
        import torch.distributed  # noqa: F401

        for thread in self._threads:
            thread.start()

    def explain_loss(self) -> str:
        """Who is lost, as soon as that is known; empty if nobody is, after all.

        From here on the caller alone says why this process ends.
        """
        self._take_word()
        if self._last_contact is None:  # the store has not answered yet
            self._last_contact = time.monotonic()
        self._decided.wait(self._patience + 5 * SECONDS_BETWEEN_BEATS)
        return self._verdict

    def leave(self, last_words: str = "", *, was_stopped: bool = False) -> None:
        """Tell the others that this process ends, and why if it has failed; beat no more.

        One that was stopped has few seconds, and waits for nobody to hear it.
        """
        if self._leaving.is_set():  # it has told
            return
        self._take_word()
        self._last_words, self._was_stopped = last_words, was_stopped
        self._leaving.set()
        for thread in self._threads:
            thread.join(SECONDS_FOR_LAST_SIGN)
        if last_words and not was_stopped and has_several_nodes() and node_rank() == 0:
            time.sleep(SECONDS_BETWEEN_BEATS + 1)  # the store ends with this node

    def _take_word(self) -> None:
        with self._speaking:
            self._main_speaks = True

    def _beat(self) -> None:
        """The thread that writes and reads signs; once the store is away it comes to an end."""
        with suppress(Exception):  # DistStoreError, or RuntimeError of a broken connection
            store, beats = _connect(), count()
            while not self._leaving.is_set():
                self._exchange_signs(store, _Sign(next(beats), self._who))
                self._leaving.wait(SECONDS_BETWEEN_BEATS)
            last = _Sign(next(beats), self._who, True, self._last_words, self._was_stopped)
            self._exchange_signs(store, last)

    def _exchange_signs(self, store: Any, own: _Sign) -> None:
        store.set(str(rank()), json.dumps(own))
        for other in range(process_count()):
            if other == rank() or not store.check([str(other)]):
                continue
            told = read_json(store.get(str(other)), list[Any], where="a sign of life")
            sign, known = _Sign(*told), self._seen.get(other)
            if known is None or known.sign != sign:
                self._seen[other] = _Seen(sign, time.monotonic())
        self._last_contact = time.monotonic()

    def _watch(self) -> None:
        """The thread that judges, and ends this process unless the main thread says why itself."""
        while not self._leaving.wait(SECONDS_BETWEEN_BEATS / 2):
            if verdict := self._judge(time.monotonic()):
                self._verdict = verdict
                self._decided.set()
                break
        else:
            return
        if self._leaving.wait(SECONDS_FOR_OWN_ERROR):
            return
        self._speaking.acquire()
        if self._main_speaks:
            self._speaking.release()
            return
        remove_open_folders()
        os._exit(report_failure(self._step, verdict))

    def _judge(self, now: float) -> str:
        """Who is lost, in words; empty while nobody is."""
        contact, is_late = self._last_contact, now - self._started > SECONDS_TO_JOIN
        if contact is None:
            return self._absence(0) if is_late else ""
        for seen in list(self._seen.values()):
            is_old = contact - seen.since > self._patience
            if seen.sign.last_words and (self._counts_now(seen.sign) or is_old):
                return f"{seen.sign.who} has ended: {seen.sign.last_words}"
            if not seen.sign.has_left and is_old:
                return self._loss(seen.sign.who)
        missing = set(range(process_count())) - {rank(), *self._seen}
        if missing and is_late:
            return self._absence(min(missing))
        if now - contact > self._patience:
            return self._loss(self._seen[0].sign.who if 0 in self._seen else _first_by_address())
        return ""

    def _counts_now(self, last: _Sign) -> bool:
        """Whether this process must end too, whatever it does.

        Who asks one process to stop most often asks all. This one may be keeping a state then.
        """
        return not last.was_stopped or self._main_speaks

    def _absence(self, other: int) -> str:
        """That a process has never given a sign; nodes have equally many processes, as a rule."""
        is_node = has_several_nodes()
        who = f"node {other // local_process_count()}" if is_node else f"process {other + 1}"
        return f"{who} has not joined within {SECONDS_TO_JOIN:.0f} s. {self._advice}"

    def _loss(self, who: str) -> str:
        return f"{who} is lost: no sign of life for {self._patience:.0f} s. {self._advice}"


def _first_by_address() -> str:
    """The first process before it has named itself."""
    return f"node 0 ({os.environ['MASTER_ADDR']})" if has_several_nodes() else "process 1"


def _connect() -> Any:
    """A connection of our own to the store that torchrun keeps, below a prefix of this start."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT, wait_for_workers=False)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"san-heartbeats/{start}", store)
