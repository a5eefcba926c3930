"""Heartbeats between the processes of one step, so that all end when a node is lost.

Every two seconds a thread of each process writes its heartbeat into torchrun's key-value store on
node 0, and reads those of the others. It keeps running while one node stages or decodes and the
others wait. A second thread detects losses. It ends this process, with one line that names the lost
process, even while the main thread waits inside torch and cannot handle signals.
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
# A process without a heartbeat for this time is lost. A network failure may be shorter.
SECONDS_UNTIL_LOST = 30.0
# The same on one node, without a network: torchrun kills the others 30 seconds after a loss.
SECONDS_UNTIL_LOST_HERE = 12.0
# Another process may start this much later: its pod may wait to be scheduled.
SECONDS_TO_JOIN = 300.0
# If processes hit the same error within this time, each reports its own.
SECONDS_FOR_OWN_ERROR = 3.0
# The store has one connection; TCP survives a network failure of some seconds.
STORE_TIMEOUT = timedelta(minutes=15)
SECONDS_FOR_LAST_SIGN = 5.0
MOST_LAST_WORDS = 1000  # characters

_BEATING: list["Heartbeats"] = []  # of this process; one at most


class _Sign(NamedTuple):
    """The heartbeat that a process writes into the store."""

    beat: int
    who: str
    has_left: bool = False
    last_words: str = ""  # why the process ends, if it failed or was stopped
    was_stopped: bool = False


class _Seen(NamedTuple):
    """The last heartbeat of a process, and when it was first read, by this machine's clock."""

    sign: _Sign
    since: float


def describe_self() -> str:
    """The name of this process for messages: its node, if there are several."""
    if has_several_nodes():
        return f"node {node_rank()} ({socket.gethostname()})"
    return f"process {rank() + 1}"


def advise(*, keeps_state: bool) -> str:
    """The advice for a lost process, for messages."""
    if keeps_state:
        return "Run again: training goes on from its checkpoint"
    return "Run again: training begins anew, as no checkpoint was kept"


@contextmanager
def beating(step: str, *, keeps_state: bool) -> "Iterator[Heartbeats]":
    """Within the block this process sends heartbeats and watches those of the others.

    At the end it reports to them its error, or that it is done. A nested block continues the
    heartbeats of the outer one, and they end with the nested block.

    Args:
        step: the name of the step.
        keeps_state: whether there is a checkpoint from which training can resume.
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
    """Like `beating`, but does nothing for a single process; starts before inputs are fetched."""
    if process_count() == 1:
        yield
        return
    with beating(step, keeps_state=keeps_state):
        yield


def _last_words(error: BaseException) -> str:
    """Why this process ends, for the messages of the others."""
    if isinstance(error, Terminated):
        return f"stopped by {error.name}"
    told = os_error_message(error) if isinstance(error, OSError) else str(error)
    return name_uris(told or type(error).__name__)[:MOST_LAST_WORDS]


class Heartbeats:
    """The heartbeats of this process, and the last ones of the others."""

    def __init__(self, step: str, *, keeps_state: bool) -> None:
        self._step, self._who = step, describe_self()
        self._patience = SECONDS_UNTIL_LOST if has_several_nodes() else SECONDS_UNTIL_LOST_HERE
        self._advice = advise(keeps_state=keeps_state)
        self._last_words, self._was_stopped, self._started = "", False, time.monotonic()
        self._seen: dict[int, _Seen] = {}
        self._last_contact: float | None = None  # with the store
        self._leaving, self._decided = threading.Event(), threading.Event()
        self._verdict = ""
        self._speaking = threading.Lock()  # the thread that ends this process never releases it
        self._main_speaks = False
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._beat, self._watch)
        ]

    def start(self) -> None:
        """Start both threads."""
        # A process that leaves at once waits only some seconds for its last heartbeat, too few to
        # import torch.
        import torch.distributed  # noqa: F401

        for thread in self._threads:
            thread.start()

    def explain_loss(self) -> str:
        """Wait until a loss is detected, and return its message; empty if no process is lost.

        From now on only the caller reports why this process ends.
        """
        self._take_word()
        if self._last_contact is None:  # the store has not answered yet
            self._last_contact = time.monotonic()
        self._decided.wait(self._patience + 5 * SECONDS_BETWEEN_BEATS)
        return self._verdict

    def leave(self, last_words: str = "", *, was_stopped: bool = False) -> None:
        """Report to the others that this process ends, and why if it failed; stop both threads.

        A stopped process has only some seconds and does not wait until the others have read this.
        """
        if self._leaving.is_set():  # already reported
            return
        self._take_word()
        self._last_words, self._was_stopped = last_words, was_stopped
        self._leaving.set()
        for thread in self._threads:
            thread.join(SECONDS_FOR_LAST_SIGN)
        if last_words and not was_stopped and has_several_nodes() and node_rank() == 0:
            time.sleep(SECONDS_BETWEEN_BEATS + 1)  # the store ends with node 0

    def _take_word(self) -> None:
        with self._speaking:
            self._main_speaks = True

    def _beat(self) -> None:
        """Write and read heartbeats, in a thread, until this process leaves or loses the store."""
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
        """Detect losses, in a thread; end this process unless the main thread reports why."""
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
        """The message for a lost process; empty if none is lost."""
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
        """Whether this process must end too, whatever it is doing.

        Whoever stops one process usually stops all, and this one may be saving its state.
        """
        return not last.was_stopped or self._main_speaks

    def _absence(self, other: int) -> str:
        """The message for a process without any heartbeat; assumes equally many on all nodes."""
        is_node = has_several_nodes()
        who = f"node {other // local_process_count()}" if is_node else f"process {other + 1}"
        return f"{who} has not joined within {SECONDS_TO_JOIN:.0f} s. {self._advice}"

    def _loss(self, who: str) -> str:
        return f"{who} is lost: no sign of life for {self._patience:.0f} s. {self._advice}"


def _first_by_address() -> str:
    """The name of the first process before its first heartbeat."""
    return f"node 0 ({os.environ['MASTER_ADDR']})" if has_several_nodes() else "process 1"


def _connect() -> Any:
    """A separate connection to torchrun's store, with a prefix for this start of the processes."""
    from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(host, port, is_master=False, timeout=STORE_TIMEOUT, wait_for_workers=False)
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"san-heartbeats/{start}", store)
