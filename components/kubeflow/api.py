"""Requests to the v2beta1 API of Kubeflow Pipelines: runs, pipelines and schedules."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import kfp_server_api as kfp

from components.kubeflow import connection
from components.kubeflow.connection import Connection, NotFoundError, Server, SubmissionError
from components.kubeflow.documents import as_spec
from components.kubeflow.schedule import Schedule
from san_core.checked_json import read_json

# The server refuses longer names. It starts a run with a longer name, but cannot store it.
LONGEST_NAMES = {"run": 255, "experiment": 128, "pipeline": 128, "version": 127}
PAGE_SIZE = 100
# The key of the version in the health of the server itself, and in that of its user interface.
_VERSION_KEYS = ("tag_name", "apiServerTagName")


class VersionIds(NamedTuple):
    """An uploaded version of a pipeline."""

    pipeline: str
    version: str


def check_name(kind: str, name: str) -> str:
    """A name that the server can keep.

    Raises:
        ValueError: it is empty or too long.
    """
    longest = LONGEST_NAMES[kind]
    if not name.strip():
        raise ValueError(f"the name of the {kind} is empty")
    if len(name) > longest:
        raise ValueError(
            f"the name of the {kind} has {len(name)} characters, and Kubeflow keeps {longest}:"
            f" {name[:40]}..."
        )
    return name


class KubeflowClient:
    """The API of one server. Every method raises SubmissionError if the server fails or refuses."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection = Connection(server)
        api = self._connection.api
        self._experiments = kfp.ExperimentServiceApi(api)
        self._runs = kfp.RunServiceApi(api)
        self._pipelines = kfp.PipelineServiceApi(api)
        self._uploads = kfp.PipelineUploadServiceApi(api)
        self._recurring = kfp.RecurringRunServiceApi(api)
        self._health = kfp.HealthzServiceApi(api)

    def version(self) -> tuple[int, int] | None:
        """Major and minor version of the server; None if it does not report them."""
        answer = self._connection.call(  # unparsed, as the generated model has no version
            lambda: self._health.healthz_service_get_healthz(_preload_content=False, **_timeout())
        )
        try:
            told = read_json(answer.data, dict[str, Any], where=f"the health of {self.server.host}")
        except ValueError:  # a web page, such as a login page
            return None
        found = next((str(told[key]) for key in _VERSION_KEYS if told.get(key)), "")
        numbers = re.match(r"v?(\d+)\.(\d+)", found)
        return (int(numbers[1]), int(numbers[2])) if numbers else None

    def start_run(
        self,
        documents: Sequence[Mapping[str, Any]],
        arguments: Mapping[str, Any],
        *,
        experiment: str,
        name: str,
        pipeline_root: str = "",
        service_account: str = "",
    ) -> str:
        """Start a run and return its id.

        Args:
            documents: the compiled pipeline and, if there is one, its platform specification.
            arguments: values of the pipeline's parameters.
            experiment: the id of the experiment it belongs to.
            name: name of the run.
            pipeline_root: URI for artifacts; empty for the server's default.
            service_account: service account of the pods; empty for the server's default.
        """
        run = kfp.V2beta1Run(
            experiment_id=experiment,
            display_name=check_name("run", name),
            pipeline_spec=as_spec(documents),
            runtime_config=_runtime_config(arguments, pipeline_root),
            service_account=service_account or None,
        )
        made = self._connection.call(
            lambda: self._runs.run_service_create_run(run, **_timeout()),
            needs="run_id",
            if_sent="the run may have started anyway; before you submit again, look at "
            f"{self.server.page_url('runs')}",
        )
        return str(made.run_id)

    def get_run(self, run: str) -> "kfp.V2beta1Run":
        """The present state of a run."""
        return self._connection.call(
            lambda: self._runs.run_service_get_run(run, **_timeout()), needs="run_id"
        )

    def run_spec(self, run: "kfp.V2beta1Run") -> Mapping[str, Any]:
        """The pipeline of a run: its own, or that of its uploaded version."""
        spec: Mapping[str, Any] | None = run.pipeline_spec
        if not spec and (of := run.pipeline_version_reference):
            spec = self.version_spec(VersionIds(of.pipeline_id, of.pipeline_version_id))
        if not spec:
            raise SubmissionError(
                f"{self.server.host} does not return the pipeline of {run.run_id}"
            )
        return spec

    def list_runs(self, experiment: str, most: int) -> "list[kfp.V2beta1Run]":
        """The newest runs of an experiment, the newest first."""
        pages = self._pages(
            lambda token: self._runs.run_service_list_runs(
                experiment_id=experiment,
                page_size=min(PAGE_SIZE, most),
                sort_by="created_at desc",
                **token,
                **_timeout(),
            )
        )
        return list(islice((run for page in pages for run in page.runs or []), most))

    def stop_run(self, run: str) -> None:
        """Ask the server to stop a run."""
        self._connection.call(lambda: self._runs.run_service_terminate_run(run, **_timeout()))

    def retry_run(self, run: str) -> None:
        """Let the server run the failed steps of a run again, and those that wait for them."""
        self._connection.call(lambda: self._runs.run_service_retry_run(run, **_timeout()))

    def find_experiment(self, name: str) -> str | None:
        """The id of the experiment of that name, if there is one."""
        by_name = {"operation": "EQUALS", "key": "display_name", "stringValue": name}
        listed = self._connection.call(
            lambda: self._experiments.experiment_service_list_experiments(
                filter=json.dumps({"predicates": [by_name]}), **self._namespace(), **_timeout()
            )
        )
        return str(listed.experiments[0].experiment_id) if listed.experiments else None

    def make_experiment(self, name: str) -> str:
        """The id of the experiment of that name, which is created if it does not exist."""
        check_name("experiment", name)
        if found := self.find_experiment(name):
            return found
        wanted = kfp.V2beta1Experiment(display_name=name, **self._namespace())
        made = self._connection.call(
            lambda: self._experiments.experiment_service_create_experiment(wanted, **_timeout()),
            needs="experiment_id",
        )
        return str(made.experiment_id)

    def find_pipeline(self, name: str) -> str | None:
        """The id of the uploaded pipeline of that name, if there is one."""
        try:
            found = self._connection.call(
                lambda: self._pipelines.pipeline_service_get_pipeline_by_name(
                    name, **self._namespace(), **_timeout()
                ),
                needs="pipeline_id",
            )
        except NotFoundError:
            return None
        return str(found.pipeline_id)

    def upload_pipeline(self, file: Path, name: str) -> str:
        """Upload a compiled pipeline under a new name; return its id."""
        check_name("pipeline", name)
        made = self._connection.call(
            lambda: self._uploads.upload_pipeline(
                str(file), name=name, **self._namespace(), **_timeout()
            ),
            needs="pipeline_id",
        )
        return str(made.pipeline_id)

    def upload_version(self, file: Path, name: str, pipeline: str) -> VersionIds:
        """Upload a compiled pipeline as a version of an existing one."""
        check_name("version", name)
        made = self._connection.call(
            lambda: self._uploads.upload_pipeline_version(
                str(file), name=name, pipelineid=pipeline, **_timeout()
            ),
            needs="pipeline_version_id",
        )
        return VersionIds(pipeline, str(made.pipeline_version_id))

    def versions(self, pipeline: str) -> "Iterator[kfp.V2beta1PipelineVersion]":
        """The versions of a pipeline, the newest first."""
        pages = self._pages(
            lambda token: self._pipelines.pipeline_service_list_pipeline_versions(
                pipeline,
                page_size=PAGE_SIZE,
                sort_by="created_at desc",
                **token,
                **_timeout(),
            )
        )
        return (one for page in pages for one in page.pipeline_versions or [])

    def version_spec(self, ids: VersionIds) -> Mapping[str, Any]:
        """The compiled pipeline of a version."""
        found = self._connection.call(
            lambda: self._pipelines.pipeline_service_get_pipeline_version(*ids, **_timeout()),
            needs="pipeline_spec",
        )
        spec: Mapping[str, Any] = found.pipeline_spec
        return spec

    def make_schedule(
        self,
        ids: VersionIds,
        arguments: Mapping[str, Any],
        schedule: Schedule,
        *,
        experiment: str,
        name: str,
        pipeline_root: str = "",
        service_account: str = "",
    ) -> str:
        """Run an uploaded version at set times; return the id of the recurring run."""
        wanted = kfp.V2beta1RecurringRun(
            display_name=check_name("run", name),
            experiment_id=experiment,
            pipeline_version_reference=kfp.V2beta1PipelineVersionReference(
                pipeline_id=ids.pipeline, pipeline_version_id=ids.version
            ),
            runtime_config=_runtime_config(arguments, pipeline_root),
            service_account=service_account or None,
            max_concurrency=str(schedule.max_concurrency),
            no_catchup=schedule.no_catchup,
            mode="ENABLE",
            trigger=kfp.V2beta1Trigger(
                cron_schedule=kfp.V2beta1CronSchedule(
                    cron=schedule.cron, start_time=schedule.start, end_time=schedule.end
                )
            ),
        )
        made = self._connection.call(
            lambda: self._recurring.recurring_run_service_create_recurring_run(
                wanted, **_timeout()
            ),
            needs="recurring_run_id",
            if_sent="the schedule may have been created anyway; before you create it again, look at"
            f" {self.server.page_url('recurringruns')}",
        )
        return str(made.recurring_run_id)

    def _pages(self, request: Callable[[dict[str, str]], Any]) -> Iterator[Any]:
        """Each page of a list; `request` is called with the token of the next page."""
        token: dict[str, str] = {}
        while True:
            page = self._connection.call(partial(request, token))
            yield page
            if not page.next_page_token:
                return
            token = {"page_token": page.next_page_token}

    def _namespace(self) -> dict[str, str]:
        """The profile, if an installation has several."""
        return {"namespace": self.server.namespace} if self.server.namespace else {}


def _runtime_config(arguments: Mapping[str, Any], pipeline_root: str) -> Any:
    return kfp.V2beta1RuntimeConfig(parameters=dict(arguments), pipeline_root=pipeline_root or None)


def _timeout() -> dict[str, Any]:
    return {"_request_timeout": connection.TIMEOUT}
