"""`python -m components on_nodes`: run a step on several nodes by Kubeflow Trainer.

python -m components on_nodes --job JSON train_san --executor-input '{{$}}' ...

`pipeline.py submit --nodes train_san=2` puts this command into the pod of the step. The pod creates
a TrainJob, follows it, and fetches its outputs, which are then the outputs of the pod. A later
attempt of the pod finds the TrainJob by its name and adopts it.
"""

import argparse
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.command.executor_input import note_mounted_artifacts, parse_executor_input
from components.command.once import OnceParser, status_of
from components.command.places import settle_places, task_place
from components.command.run import FILE_KINDS
from components.command.step import Step, step_parameters, step_parser
from components.nodes.api import (
    ConflictError,
    Kubernetes,
    KubernetesError,
    NotFoundError,
    UnavailableError,
)
from components.nodes.follow import COMPLETE, FAILED, End, end_of, follow
from components.nodes.follower import AdoptedError, Attempt, Follower
from components.nodes.job import TrainJob, make_train_job
from components.process.failure import write_failure
from components.process.messages import log_to_stderr, os_error_message
from components.process.signals import STOP_SIGNALS, Terminated, raise_terminated, signal_handler
from components.storage.outputs import write_executor_output
from components.storage.places import open_storage
from components.storage.store import Stat
from components.storage.transfer import delete_artifact, fetch_artifact, fetch_file
from san_core.checked_json import read_json

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 2.0
SECONDS_UNTIL_GONE = 600.0  # of a TrainJob that is deleted, and its pods
SECONDS_TO_DELETE = 10.0  # when the pod is stopped; Kubernetes kills it after 30 by default


def on_nodes_parser(steps: Mapping[str, Step]) -> OnceParser:
    """The parser of the command."""
    parser = OnceParser(
        prog="python -m components on_nodes",
        description="Run a step on several nodes by Kubeflow Trainer, in a pod of a pipeline that"
        " was compiled with --nodes.",
    )
    parser.add_argument(
        "--job", required=True, metavar="JSON", help="the TrainJob, without its name and arguments"
    )
    parser.add_argument("step", choices=list(steps), help="name of the step")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="command line of the step")
    return parser


def run_on_nodes(steps: Mapping[str, Step], argv: Sequence[str]) -> int:
    """Run the command; return the exit status, that of a node if the nodes failed.

    steps: the steps that can use several processes, by name.
    """
    parser = on_nodes_parser(steps)
    try:
        options = parser.parse_args(argv)
        step = steps[options.step]
        values = vars(step_parser(step).parse_args(options.words))
    except SystemExit as stop:
        return status_of(stop)
    name = step.__name__
    try:
        executor_input = parse_executor_input(values.pop("executor_input") or "{}")
        values = settle_places(values, executor_input)
        template = read_json(options.job, dict[str, Any], where="argument --job")
        task_place(executor_input)
    except ValueError as error:
        return write_failure(name, str(error), status=2)
    try:
        with log_to_stderr(), signal_handler(raise_terminated, *STOP_SIGNALS):
            return _run(step, template, values, executor_input)
    except Terminated as stop:
        return write_failure(name, f"stopped by {stop.name}", status=stop.status)
    except KeyboardInterrupt:
        return write_failure(name, "stopped by Ctrl-C", status=130)
    except OSError as error:
        return write_failure(name, os_error_message(error))
    except ValueError as error:
        return write_failure(name, str(error))


def _run(
    step: Step,
    template: Mapping[str, Any],
    values: Mapping[str, Any],
    executor_input: Mapping[str, Any],
) -> int:
    """Run the step on its nodes and fetch its outputs; return the exit status."""
    note_mounted_artifacts(executor_input)
    kubernetes = Kubernetes.of_this_pod()
    pod = kubernetes.own_pod()
    job = make_train_job(
        step,
        template,
        values,
        inputs=_uris(executor_input),
        place=task_place(executor_input),
        pod=pod,
        namespace=kubernetes.namespace,
    )
    follower = Follower(kubernetes, job.name, Attempt.of_pod(pod), job.request)
    try:
        end = _run_to_its_end(
            kubernetes, job, follower, is_there=lambda: _are_there(step, _list_outputs(step, job))
        )
    except (Terminated, KeyboardInterrupt):
        _delete_at_once(follower)
        raise
    except UnavailableError as error:
        raise KubernetesError(
            f"{error}; if the TrainJob is there, it goes on, and the next attempt follows it"
        ) from error
    if not end.is_complete:
        return _hand_on_failure(step, job, end)
    written = {name: Path(values[name]) for name in job.outputs}
    listed = _list_outputs(step, job)
    _fetch(step, job, {name: written[name] for name in written if listed[name]})
    _check_fetched(kubernetes, step, job, follower, listed)
    write_executor_output(executor_input, written)
    _clean_up(step, job, follower)
    return 0


def _uris(executor_input: Mapping[str, Any]) -> dict[str, str]:
    """The URI of each input artifact, by name."""
    passed = executor_input.get("inputs", {}).get("artifacts") or {}
    artifacts = {name: (one or {}).get("artifacts") or [] for name, one in passed.items()}
    return {name: str(found[0]["uri"]) for name, found in artifacts.items() if found}


def _run_to_its_end(
    kubernetes: Kubernetes, job: TrainJob, follower: Follower, *, is_there: Callable[[], bool]
) -> End:
    """Create the TrainJob, unless an earlier attempt has, and follow it.

    is_there: tells whether its outputs exist.

    Raises:
        AdoptedError: a later attempt follows it now.
        KubernetesError: it cannot be created or followed, or completes without outputs.
    """
    found = _start_or_find(kubernetes, job, follower)
    if end_of(found) == COMPLETE and not is_there():  # an attempt has deleted them
        log.info("TrainJob %s is complete, but its outputs are gone: creating it anew", job.name)
        follower.delete()
        _wait_until_gone(kubernetes, found)
        _start_or_find(kubernetes, job, follower)
    end = follow(kubernetes, follower)
    if end.is_complete and not is_there():
        raise KubernetesError(f"TrainJob {job.name} is complete, but left nothing at {job.scratch}")
    return end


def _start_or_find(kubernetes: Kubernetes, job: TrainJob, follower: Follower) -> Mapping[str, Any]:
    """The TrainJob, created now or adopted from an earlier attempt; a failed one is replaced.

    Raises:
        AdoptedError: a later attempt follows it.
        KubernetesError: it cannot be created or adopted, or its name is taken by a different one.
    """
    while True:
        try:
            made = kubernetes.create_train_job(job.body)
            follower.check(made)
            log.info("TrainJob %s created in namespace %s", job.name, kubernetes.namespace)
            return made
        except ConflictError:
            pass
        try:
            if found := _take_over(kubernetes, follower):
                return found
        except (NotFoundError, ConflictError):  # it has just gone or changed
            time.sleep(SECONDS_BETWEEN_LOOKS)


def _take_over(kubernetes: Kubernetes, follower: Follower) -> Mapping[str, Any] | None:
    """The TrainJob of an earlier attempt, adopted; None if it had failed and is deleted.

    Raises:
        NotFoundError: it is gone.
        ConflictError: it has changed in between.
        AdoptedError: a later attempt follows it.
        KubernetesError: it cannot be adopted, or is a different one.
    """
    found = kubernetes.get_train_job(follower.name)
    follower.check_adoptable(found)
    is_going = bool(found["metadata"].get("deletionTimestamp"))
    if not is_going and end_of(found) != FAILED:
        adopted = follower.adopt(found)
        log.info("following TrainJob %s of an earlier attempt", follower.name)
        return adopted
    log.info("deleting TrainJob %s of an earlier attempt", follower.name)
    if not is_going:
        kubernetes.delete_train_job(found)
    _wait_until_gone(kubernetes, found)
    return None


def _wait_until_gone(kubernetes: Kubernetes, deleted: Mapping[str, Any]) -> None:
    """Wait until a deleted TrainJob and its pods are gone.

    Raises:
        KubernetesError: this takes too long.
    """
    name, uid = deleted["metadata"]["name"], deleted["metadata"]["uid"]
    until = time.monotonic() + SECONDS_UNTIL_GONE
    while time.monotonic() < until:
        try:
            if kubernetes.get_train_job(name)["metadata"]["uid"] != uid:
                return  # another attempt has created the next one
        except NotFoundError:
            return
        time.sleep(SECONDS_BETWEEN_LOOKS)
    raise KubernetesError(
        f"TrainJob {name} is still being deleted after {SECONDS_UNTIL_GONE:.0f} s: run again later"
    )


def _delete_at_once(follower: Follower) -> None:
    """Delete the TrainJob of a stopped pod within SECONDS_TO_DELETE, unless another follows it."""
    try:
        was_there = follower.delete(until=time.monotonic() + SECONDS_TO_DELETE)
    except AdoptedError as error:
        log.info("%s", error)
    except OSError as error:
        log.warning("TrainJob %s may remain: %s", follower.name, os_error_message(error))
    else:
        log.info("TrainJob %s %s", follower.name, "is deleted" if was_there else "does not exist")


def _hand_on_failure(step: Step, job: TrainJob, end: End) -> int:
    """Report the failure of the nodes as the pod's own; return the exit status."""
    log.info("TrainJob %s stays; kubectl describe trainjob %s tells more", job.name, job.name)
    who, colon, message = end.message.partition(": ")
    if colon and who.startswith(step.__name__):  # as the step itself says it
        return write_failure(who, message, status=end.status)
    return write_failure(step.__name__, end.message, status=end.status)


def _list_outputs(step: Step, job: TrainJob) -> dict[str, list[Stat]]:
    """The objects of each output, by its name; of an output that does not exist, none."""
    return {name: _list_output(step, job, name) for name in job.outputs}


def _list_output(step: Step, job: TrainJob, name: str) -> list[Stat]:
    if name in _files(step):
        found = open_storage(job.scratch).stat(name)
        return [found] if found else []
    return open_storage(job.outputs[name]).list()


def _are_there(step: Step, listed: Mapping[str, Sequence[Stat]]) -> bool:
    """Whether all outputs exist that the step always writes."""
    return all(listed[p.name] for p in step_parameters(step) if p.is_output and p.is_required)


def _files(step: Step) -> set[str]:
    """The names of the outputs that are files, not folders."""
    declared = step_parameters(step)
    return {
        p.name for p in declared if p.is_output and p.artifact and p.artifact.kind in FILE_KINDS
    }


def _fetch(step: Step, job: TrainJob, written: Mapping[str, Path]) -> None:
    """Fetch the outputs of the nodes to the paths that KFP gave this pod.

    Raises:
        OSError: one cannot be fetched.
    """
    for name, path in written.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in _files(step):
            fetch_file(job.outputs[name], path)
        else:
            path.mkdir(exist_ok=True)
            fetch_artifact(job.outputs[name], path)
    log.info("fetched %s", job.scratch)


def _check_fetched(
    kubernetes: Kubernetes,
    step: Step,
    job: TrainJob,
    follower: Follower,
    listed: Mapping[str, Sequence[Stat]],
) -> None:
    """Check that the outputs were whole while they were fetched.

    They were if this attempt still follows the TrainJob, as attempts delete outputs after their
    TrainJob. If it is gone, or the API is unavailable, the outputs must be as they were listed.

    listed: the outputs before they were fetched.

    Raises:
        AdoptedError: another attempt follows the TrainJob, and deletes the outputs in its time.
        KubernetesError: outputs are missing or have changed, or the API refuses.
    """
    try:
        follower.check(kubernetes.get_train_job(job.name))
    except (NotFoundError, UnavailableError) as error:
        if not _are_there(step, listed) or _list_outputs(step, job) != listed:
            raise KubernetesError(
                f"outputs at {job.scratch} are missing, or changed while they were fetched"
            ) from error


def _clean_up(step: Step, job: TrainJob, follower: Follower) -> None:
    """Delete the TrainJob and its copy of the outputs; failures are only logged.

    Both stay if another attempt follows the TrainJob. If this pod is killed meanwhile, nodes of its
    next attempt may write the outputs again.
    """
    try:
        follower.delete()
        for name, uri in job.outputs.items():
            if name in _files(step):
                open_storage(job.scratch).delete(name)
            else:
                delete_artifact(uri)
    except AdoptedError as error:
        log.info("%s stays: %s", job.scratch, error)
    except OSError as error:
        log.warning("%s cannot be cleaned up: %s", job.scratch, os_error_message(error))
