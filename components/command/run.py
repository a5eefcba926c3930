"""Running one step as a process: arguments in, exit status and log lines out.

Exit status 0: done. 1: failed, with one line that says why. 2: wrong usage. 129: SIGHUP, when a
connection drops. 130: Ctrl-C. 143: SIGTERM. An error that is not a user's mistake is a defect and
shows its traceback.
"""

import argparse
import logging
import multiprocessing
import os
import re
import shutil
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import _RemoteTraceback
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import mkdtemp
from types import FrameType
from typing import Any, Protocol

from components.command.code import ROOT, stale_kernels
from components.command.executor_input import (
    note_mounted_artifacts,
    parse_executor_input,
    passed_artifact_path,
)
from components.command.once import status_of
from components.command.places import settle_places
from components.command.step import Parameter, Step, step_parameters, step_parser
from components.process.failure import report_failure, write_failure
from components.process.gpu import hide_gpus
from components.process.messages import (
    forget_copies,
    leave_last_words,
    log_to_stderr,
    name_uris,
    note_copy,
    os_error_message,
)
from components.process.out_of_memory import out_of_memory_message
from components.process.scratch import scratch_root, temporary_folder
from components.process.signals import STOP_SIGNALS, Terminated, ignore_stop, signal_handler
from components.process.start_line import log_start
from components.process.torchrun import (
    check_may_share_work,
    is_first_of_node,
    is_first_rank,
)
from components.storage import outputs, transfer
from components.storage.places import is_remote, local_path, path_or_uri, real_path
from components.storage.sources import STORE_PARAMETERS, read_places
from san_core.disk import DISK_FULL_ERRORS
from san_core.model.saved import failure_of, lacks_sums

log = logging.getLogger(__name__)

OWN_CODE = (ROOT / "components", ROOT / "san_core")
SECONDS_TO_CLEAN_UP = 5.0
_FRAME = re.compile(r'^  File "(.+)", line \d+, in .+\n    (.+)', re.MULTILINE)  # of a traceback
# The outputs that are files, by their KFP type.
FILE_KINDS = ("HTML", "Metrics", "ClassificationMetrics")


class Company(Protocol):
    """A block that tells the other processes of a step why this one fails."""

    def __call__(self, step: str, *, keeps_state: bool) -> AbstractContextManager[Any]:
        """The block for a step; keeps_state: whether training can resume from a checkpoint."""


def _alone(step: str, *, keeps_state: bool) -> AbstractContextManager[Any]:
    del step, keeps_state
    return nullcontext()


def run_step(step: Step, argv: Sequence[str], *, company: Company = _alone) -> int:
    """Run one step with the words of its command line; return the exit status.

    Args:
        step: the function.
        argv: the words.
        company: the block in which inputs are fetched and the step runs.

    Raises:
        Exception: an error that is neither an OSError nor raised by this project as ValueError.
    """
    with forget_copies():
        try:
            return _run_and_report(step, argv, company)
        except Exception as error:  # a defect, whose traceback Kubernetes has no room for
            leave_last_words(f"{step.__name__}: {type(error).__name__}: {name_uris(str(error))}")
            raise


def _run_and_report(step: Step, argv: Sequence[str], company: Company) -> int:
    parser = step_parser(step)
    try:
        values = vars(parser.parse_args(argv))
        executor_input = _read_executor_input(parser, values.pop("executor_input"))
        device = values.pop("device", "auto")
    except SystemExit as stop:
        if stop.code:
            _tell_company(step, company, "its command line is wrong, as its log says")
        return status_of(stop)
    try:
        check_may_share_work(step.__name__)
    except ValueError as error:  # so this process does not know its rank
        return write_failure(step.__name__, str(error))
    try:
        values = settle_places(values, executor_input)
    except ValueError as error:
        _tell_company(step, company, str(error))
        return report_failure(step.__name__, str(error), status=2)
    try:
        with log_to_stderr(), _raise_on_stop_signals(), hide_gpus(device == "cpu"):
            _run_parsed_step(step, values, executor_input, company)
    except Terminated as stop:
        if not is_first_of_node():
            return stop.status
        return report_failure(step.__name__, f"stopped by {stop.name}", status=stop.status)
    except KeyboardInterrupt:
        return report_failure(step.__name__, "stopped by Ctrl-C", status=130)
    except OSError as error:
        told = os_error_message(error)
        is_full = error.errno in DISK_FULL_ERRORS  # this machine's disk, whatever is copied
        return report_failure(step.__name__, told if is_full else name_uris(told))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "components", "san_core"):
            raise
        return report_failure(
            step.__name__, f"needs the Python package {package}, which is not installed here"
        )
    except ValueError as error:
        if not _is_user_error(error):
            raise
        return report_failure(step.__name__, name_uris(str(error)))
    except (RuntimeError, MemoryError) as error:
        message = out_of_memory_message(error, step.__name__)
        if message is None:
            raise
        return report_failure(step.__name__, message)
    return 0


def _tell_company(step: Step, company: Company, why: str) -> None:
    """Let the others know why this process ends before it has begun: they would wait for it."""
    with suppress(ValueError), company(step.__name__, keeps_state=False):
        raise ValueError(why)


def _run_parsed_step(
    step: Step,
    values: dict[str, Any],
    executor_input: dict[str, Any] | None,
    company: Company,
) -> None:
    """Add the artifacts that KFP passes otherwise, run the step, report its outputs to KFP."""
    declared = step_parameters(step)
    if executor_input is not None:
        note_mounted_artifacts(executor_input)
        for p in declared:
            if p.is_input and values[p.name] is None:
                values[p.name] = passed_artifact_path(executor_input, p.name)
    outgoing = [p for p in declared if p.is_output and values[p.name] is not None]
    read = [values[p.name] for p in declared if p.is_input and values[p.name] is not None]
    settings = {p.name: values[p.name] for p in declared if p.artifact is None}
    read += [path_or_uri(place.uri) for place in read_places(settings, step.__name__)]
    for number, p in enumerate(outgoing):
        _check_output(values[p.name], read, is_file=_is_file_artifact(p))
        for other in outgoing[:number]:
            _check_apart(values[other.name], values[p.name], f"{other.flag} and {p.flag}")
    for p in declared:
        if p.name in STORE_PARAMETERS:
            _check_store_outside(
                values[p.name], [*read, *(values[o.name] for o in outgoing)], p.flag
            )
    log_start(step.__name__, precision=values.get("precision", "float32"))
    for source in stale_kernels(f"components.{step.__name__}"):
        log.warning(
            "%s is newer than its compiled file, which runs; compile it with `make install`",
            source.relative_to(ROOT),
        )
    keeps_state = bool(values.get("checkpoint"))
    with company(step.__name__, keeps_state=keeps_state), temporary_folder() as room:
        remote = {p: values[p.name] for p in outgoing if isinstance(values[p.name], str)}
        values |= _models_of_checkpoints(declared, values)
        values |= _localise_artifacts(declared, values, room)
        written = {p.name: values[p.name] for p in outgoing}
        for p in declared:
            if not p.is_input or values[p.name] is None:
                continue
            if lacks_sums(values[p.name]):
                log.warning("%s has no SHA256SUMS, so damage cannot be detected", values[p.name])
            if failure := failure_of(values[p.name]):
                log.warning("%s was left by a failed training: %s", values[p.name], failure)
        for path in written.values():
            path.parent.mkdir(parents=True, exist_ok=True)
        failed: outputs.FailedWithOutputsError | None = None
        try:
            step(**values)
        except outputs.FailedWithOutputsError as error:
            failed = error
        made = {written[p.name]: uri for p, uri in remote.items() if written[p.name].exists()}
        _send_or_keep(made)
        if failed:
            raise failed
    if not is_first_rank():
        return
    if executor_input is not None:
        outputs.write_executor_output(executor_input, written)
        return
    for p in outgoing:  # by hand: a pipeline shows the places itself
        log.info("wrote %s: %s", p.name, remote.get(p, written[p.name]))


def _send_or_keep(made: Mapping[Path, str]) -> None:
    """Upload artifacts to their buckets; if that fails or is stopped, keep the rest here.

    Raises:
        OSError: an upload failed; the message says where the artifacts not uploaded are kept.
    """
    unsent = dict(made)
    for path, uri in made.items():
        try:
            transfer.send_artifact(path, uri)
        except BaseException as error:
            told = _keep_unsent(unsent)
            if isinstance(error, OSError):
                raise OSError(f"{os_error_message(error)}; {told}") from error
            log.warning("%s", told)
            raise
        del unsent[path]


def _keep_unsent(unsent: Mapping[Path, str]) -> str:
    """Move artifacts to a folder that is not deleted; returns in words where each one is."""
    folder = Path(mkdtemp(prefix="san-unsent-", dir=scratch_root()))
    for path in unsent:
        shutil.move(path, folder / path.name)
    return "; ".join(
        f"the upload to {uri} is kept as {folder / path.name}" for path, uri in unsent.items()
    )


def _is_file_artifact(p: Parameter) -> bool:
    return p.artifact is not None and p.artifact.kind in FILE_KINDS


def _models_of_checkpoints(
    declared: Sequence[Parameter], values: Mapping[str, Any]
) -> dict[str, Path | str]:
    """Where the models lie of inputs that may be checkpoints; nothing is downloaded.

    Raises:
        ValueError: as `model_at`.
        OSError: a bucket cannot be listed.
    """
    given = [p.name for p in declared if p.artifact and p.artifact.may_be_checkpoint]
    given = [name for name in given if values[name] is not None]
    if not given:
        return {}
    from components.storage.checkpoint import model_at  # needs torch, which few steps do

    return {name: path_or_uri(model_at(str(values[name]))) for name in given}


def _localise_artifacts(
    declared: Sequence[Parameter], values: Mapping[str, Any], room: Path
) -> dict[str, Path]:
    """Local paths for artifacts in buckets: inputs are downloaded, outputs get a path."""
    found = {}
    for p in declared:
        if p.artifact and isinstance(values[p.name], str):
            found[p.name] = room / p.name
            note_copy(found[p.name], values[p.name])
            if p.is_input:
                transfer.fetch_artifact(values[p.name], room / p.name)
    return found


def _check_output(output: Path | str, inputs: Sequence[Path | str], *, is_file: bool) -> None:
    """Check that an output replaces at most an older output, and no input.

    Raises:
        ValueError: it would replace something else.
    """
    for place in inputs:
        if _overlap(output, place):
            raise ValueError(f"output {output} and input {place} must not contain each other")
    if isinstance(output, str):
        transfer.check_uri_replaceable(output, is_file=is_file)
    else:
        check = outputs.check_page_replaceable if is_file else outputs.check_replaceable
        check(output)


def _check_apart(one: Path | str, other: Path | str, flags: str) -> None:
    """Two outputs must not replace each other, nor lie in each other.

    Raises:
        ValueError: they do.
    """
    if _overlap(one, other):
        raise ValueError(f"outputs {flags} must not contain each other: {one} and {other}")


def _overlap(one: Path | str, other: Path | str) -> bool:
    """Whether two places are the same, or one lies in the other."""
    if is_remote(str(one)) != is_remote(str(other)):
        return False
    if is_remote(str(one)):
        uris = _path_in_server(str(one)), _path_in_server(str(other))
        return uris[0].startswith(uris[1]) or uris[1].startswith(uris[0])
    paths = real_path(Path(one)), real_path(Path(other))
    return paths[0].is_relative_to(paths[1]) or paths[1].is_relative_to(paths[0])


def _path_in_server(uri: str) -> str:
    """Where a URI leads in its server; s3:// and minio:// may be the same one."""
    return uri.partition("://")[2].strip("/") + "/"


def _check_store_outside(store: str, places: Sequence[Path | str], flag: str) -> None:
    """A store must be a folder, and not lie in what is read, nor in what a step replaces.

    Raises:
        ValueError: it does, or it is a file or below one.
    """
    if store and not is_remote(store):
        path = real_path(local_path(store))
        there = next(at for at in (path, *path.parents) if at.exists())
        if not there.is_dir():
            raise ValueError(f"{flag} {store}: {there} is a file; a folder is needed")
    for place in map(str, places):
        if is_remote(store) and is_remote(place):
            is_inside = _path_in_server(store).startswith(_path_in_server(place))
        elif store and not is_remote(store) and not is_remote(place):
            folder = real_path(local_path(store))
            is_inside = folder.is_relative_to(real_path(place))
        else:
            is_inside = False  # one of them is in a bucket, or nothing is kept
        if is_inside:
            raise ValueError(f"{flag} {store} must not lie in {place}")


def _read_executor_input(
    parser: argparse.ArgumentParser, text: str | None
) -> dict[str, Any] | None:
    """KFP's executor input, or None for a run by hand."""
    if text is None:
        return None
    try:
        return parse_executor_input(text)
    except ValueError as error:
        parser.error(str(error))


def _is_user_error(error: ValueError) -> bool:
    """Whether a raise statement of ours made it, so that its message is meant for the user.

    What zip, int or an unpacking raises in our code is a defect: such an error has no raise. The
    line decides, not a class of our own, as san_core raises plain ValueError for all its users.
    """
    file, line = _raise_location(error)
    source = Path(file).resolve()
    return line.startswith("raise") and any(source.is_relative_to(code) for code in OWN_CODE)


def _raise_location(error: ValueError) -> tuple[str, str]:
    """The file and the line of code that raised an error, in this process or in a worker of its.

    What a worker of a process pool raises is raised again here, with the worker's traceback as
    the text of its cause.
    """
    if isinstance(error.__cause__, _RemoteTraceback):
        file, line = [("", ""), *_FRAME.findall(error.__cause__.tb)][-1]
        return file, line
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename, frame.line or ""


@contextmanager
def _raise_on_stop_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into Terminated, which gives the step some seconds to clean up.

    As process 1 of a container there is no default action, so a handler is what makes it stop.
    """
    own_process = os.getpid()

    def terminate(number: int, _frame: FrameType | None) -> None:
        stop = Terminated(number)
        if os.getpid() != own_process:  # a forked worker, which has nothing to clean up
            os._exit(stop.status)
        ignore_stop()  # the deadline ends what a second one would
        for child in multiprocessing.active_children():
            child.kill()  # else a pool would be waited for until its work is done
        deadline = threading.Timer(SECONDS_TO_CLEAN_UP, os._exit, (stop.status,))
        deadline.daemon = True
        deadline.start()
        raise stop

    with signal_handler(terminate, *STOP_SIGNALS):
        yield
