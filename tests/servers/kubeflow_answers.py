"""What Kubeflow Pipelines 2.17.0 answers, as it was recorded from its own API server.

`kubeflow_recorded.json` holds the recorded exchanges; a test replays them here.
"""

import email
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import yaml

API = "/apis/v2beta1"
NEVER, NOW = "1970-01-01T00:00:00Z", "2026-11-28T14:34:47Z"
_KINDS = {"experiments": 1, "runs": 2, "pipelines": 3, "versions": 4, "recurring": 5}


class Asked(NamedTuple):
    """One request, its query with one value each."""

    method: str
    path: str
    query: dict[str, str]
    body: Any


class RefusalError(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, content: Any) -> None:
        super().__init__(status, content)
        self.status = status
        self.content = content


def refusal(
    status: int, code: int, message: str, detail: str = "Internal Server Error"
) -> RefusalError:
    """An error as the server's gateway writes it."""
    kind = "type.googleapis.com/google.rpc.Status"
    details = [{"@type": kind, "code": code, "message": detail}]
    return RefusalError(status, {"code": code, "message": message, "details": details})


def upload_refusal(status: int, message: str) -> RefusalError:
    """An error of an upload, which the gateway has no part in."""
    return RefusalError(status, {"error_message": message, "error_details": message})


class KubeflowAnswers:
    """The state of the server, and its responses.

    Attributes:
        experiments: the id of each by its name
        runs: what is answered for each by its id
        pipelines: likewise
        versions: likewise
        recurring: likewise
        is_for_several: whether it is an installation for several users
        version: what it calls its release; "unknown" where it was built by hand
        workflows: names of the runs that were started, kept or not
    """

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.recurring: dict[str, dict[str, Any]] = {}
        self.is_for_several = False
        self.version = "unknown"
        self.workflows: list[str] = []

    def answer(self, asked: Asked) -> Any:
        """The content of a good answer.

        Raises:
            RefusalError: it is none.
        """
        for method, pattern, reply in _ROUTES:
            found = re.fullmatch(API + pattern, asked.path)
            if found and method == asked.method:
                return getattr(self, reply)(asked, *found.groups())
        raise RefusalError(404, {"code": 5, "message": "Not Found", "details": []})

    def new_id(self, kind: str) -> str:
        """An id that nothing has, and that is the same in every test."""
        number = len(getattr(self, kind)) + 1
        return f"{_KINDS[kind]:08d}-0000-4000-8000-{number:012d}"

    def health(self, _: Asked) -> Any:
        return {
            "commit_sha": "unknown",
            "tag_name": self.version,
            "multi_user": self.is_for_several,
            "pipeline_store": "database",
        }

    def list_experiments(self, asked: Asked) -> Any:
        if self.is_for_several and "namespace" not in asked.query:
            raise refusal(
                *(400, 3),
                "List experiments failed: Failed to authorize with API: Invalid input error: An "
                "experiment cannot have an empty namespace in multi-user mode",
            )
        (predicate,) = json.loads(asked.query["filter"])["predicates"]
        name = predicate["stringValue"]
        if name not in self.experiments:
            return {}
        return {"experiments": [self._experiment(name)], "total_size": 1}

    def make_experiment(self, asked: Asked) -> Any:
        name = asked.body.get("display_name", "")
        failed = "[ExperimentServer]: Failed to create a experiment due to conversion error: "
        failed += "InternalServerError: Failed to convert API experiment to model experiment: "
        if not name:
            raise refusal(
                500, 13, f"{failed}Invalid input error: Experiment must have a non-empty name"
            )
        if len(name) > 128:
            raise refusal(
                500, 13, f"{failed}Invalid input error: Experiment.Name length cannot exceed 128"
            )
        if name in self.experiments:
            why = f"The name {name} already exists. Please specify a new name"
            why = f"Failed to create a new experiment. {why}"
            text = f"Failed to create a experiment: Already exist error: {why}"
            raise refusal(409, 6, text, why)
        self.experiments[name] = self.new_id("experiments")
        return self._experiment(name)

    def get_experiment(self, _: Asked, one: str) -> Any:
        for name, known in self.experiments.items():
            if known == one:
                return self._experiment(name)
        why = f"Experiment {one} not found"
        raise refusal(404, 5, f"Failed to fetch experiment: ResourceNotFoundError: {why}", f"{why}")

    def _experiment(self, name: str) -> dict[str, Any]:
        return {
            "experiment_id": self.experiments[name],
            "display_name": name,
            "created_at": NOW,
            "storage_state": "AVAILABLE",
            "last_run_created_at": NEVER,
        }

    def make_run(self, asked: Asked) -> Any:
        body = asked.body
        name = body.get("display_name", "")
        if not name:
            raise refusal(
                *(500, 13),
                "CreateJob(job.ToV2())Failed to create a run due to conversion error: "
                "InternalServerError: Failed to convert a API run detail to its internal "
                "representation: Invalid input error: Run name cannot be empty",
            )
        self._check_experiment(body["experiment_id"])
        source = self._pipeline_of(body)
        arguments = body.get("runtime_config", {}).get("parameters", {})
        _check_run(source.pop("checked"), arguments)
        self.workflows.append(name)
        if len(name) > 255:
            raise refusal(
                *(500, 13),
                "Failed to create a new run: Failed to create a run: InternalServerError: Failed "
                f"to store run {name} to table: Error 1406 (22001): Data too long for column "
                "'DisplayName' at row 1",
            )
        run = self.new_id("runs")
        self.runs[run] = {
            "experiment_id": body["experiment_id"],
            "run_id": run,
            "display_name": name,
            "storage_state": "AVAILABLE",
            **source,
            "runtime_config": body.get("runtime_config", {}),
            "service_account": body.get("service_account") or "pipeline-runner",
            "created_at": NOW,
            "scheduled_at": NOW,
            "finished_at": NEVER,
            "state": "PENDING",
            "state_history": [{"update_time": NOW, "state": "PENDING"}],
        }
        return self.runs[run]

    def _check_experiment(self, one: str) -> None:
        if one not in self.experiments.values():
            why = f"Experiment {one} not found"
            fetch = f"Failed to fetch namespace for experiment {one}: Failed to fetch namespace"
            raise refusal(
                *(404, 5),
                "Failed to create a new run: Failed to create a run due to invalid experimentId "
                f"and namespace combination: {fetch} from experiment {one}: "
                f"ResourceNotFoundError: {why}",
                why,
            )

    def _pipeline_of(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """What an answer says of the pipeline, and the definition that is checked."""
        reference = body.get("pipeline_version_reference")
        if reference:
            spec = self.versions[reference["pipeline_version_id"]]["pipeline_spec"]
            found: dict[str, Any] = {"pipeline_version_reference": reference}
        else:
            spec = body["pipeline_spec"]
            found = {"pipeline_spec": spec}
        return {**found, "checked": spec.get("pipeline_spec", spec)}

    def get_run(self, _: Asked, run: str) -> Any:
        if run not in self.runs:
            why = f"Run {run} not found"
            raise refusal(
                *(404, 5),
                f"Failed to get a run: Failed to fetch run {run}: ResourceNotFoundError: {why}",
                why,
            )
        return self.runs[run]

    def list_runs(self, asked: Asked) -> Any:
        wanted = asked.query["experiment_id"]
        found = [one for one in self.runs.values() if one["experiment_id"] == wanted]
        assert asked.query["sort_by"] == "created_at desc"
        return _page(asked, "runs", found[::-1])

    def retry_run(self, asked: Asked, run: str) -> Any:
        if self.get_run(asked, run)["state"] != "FAILED":
            why = f"Failed to retry run {run} due to error fetching workflow manifest"
            raise refusal(
                *(409, 10),
                f"Failed to retry a run: BadRequestError: {why}: Invalid input error: Workflow "
                "manifest cannot be empty",
                why,
            )
        self.runs[run]["state"] = "RUNNING"
        return {}

    def stop_run(self, _: Asked, run: str) -> Any:
        if self.runs.get(run, {}).get("state") not in ("PENDING", "RUNNING"):
            why = f"Failed to terminate a run {run}. Row not found"
            raise refusal(
                *(400, 3),
                f"Failed to terminate a run: Failed to terminate run {run}: Invalid input error: "
                f"{why}",
                why,
            )
        self.runs[run]["state"] = "CANCELING"
        return {}

    def upload_pipeline(self, asked: Asked) -> Any:
        name = asked.query["name"]
        if len(name) > 128:
            raise RefusalError(400, "Invalid input error: Pipeline.Name length cannot exceed 128\n")
        spec = _uploaded_spec(asked.body)
        if any(one["name"] == name for one in self.pipelines.values()):
            raise upload_refusal(409, "Failed to create a pipeline and a pipeline version")
        made = self.new_id("pipelines")
        self.pipelines[made] = {
            "pipeline_id": made,
            "display_name": asked.query.get("display_name", name),
            "name": name,
            "created_at": NOW,
        }
        self._add_version(made, name, spec)
        return self.pipelines[made]

    def upload_version(self, asked: Asked) -> Any:
        name, pipeline = asked.query["name"], asked.query["pipelineid"]
        spec = _uploaded_spec(asked.body)
        same = [one for one in self.versions.values() if one["pipeline_id"] == pipeline]
        if any(one["name"] == name for one in same):
            raise upload_refusal(409, "Failed to create a pipeline version")
        return self._add_version(pipeline, name, spec)

    def _add_version(self, pipeline: str, name: str, spec: Any) -> dict[str, Any]:
        version = self.new_id("versions")
        self.versions[version] = {
            "pipeline_id": pipeline,
            "pipeline_version_id": version,
            "display_name": name,
            "name": name,
            "created_at": NOW,
            "pipeline_spec": spec,
        }
        return self.versions[version]

    def find_pipeline(self, asked: Asked, name: str) -> Any:
        for one in self.pipelines.values():
            if one["name"] == name:
                return one
        namespace = asked.query.get("namespace", "")
        why = f"Namespace/Pipeline {namespace}/{name} not found"
        raise refusal(
            *(404, 5),
            f"Failed to get a pipeline with name {name} and namespace {namespace}. Check error "
            f"stack.: Failed to get a pipeline named {name} in namespace {namespace}: "
            f"ResourceNotFoundError: {why}",
            why,
        )

    def list_versions(self, asked: Asked, pipeline: str) -> Any:
        found = [one for one in self.versions.values() if one["pipeline_id"] == pipeline]
        assert asked.query["sort_by"] == "created_at desc"
        return _page(asked, "pipeline_versions", found[::-1])

    def get_version(self, _: Asked, _pipeline: str, version: str) -> Any:
        return self.versions[version]

    def make_recurring(self, asked: Asked) -> Any:
        body = asked.body
        _check_recurring(body)
        source = self._pipeline_of(body)
        _check_run(source.pop("checked"), body["runtime_config"].get("parameters", {}))
        made = self.new_id("recurring")
        self.recurring[made] = {
            "recurring_run_id": made,
            "display_name": body["display_name"],
            **source,
            "runtime_config": body["runtime_config"],
            "service_account": body.get("service_account") or "pipeline-runner",
            "max_concurrency": body["max_concurrency"],
            "trigger": body["trigger"],
            "mode": body["mode"],
            "created_at": NOW,
            "updated_at": NOW,
            "status": "ENABLED",
            "no_catchup": body["no_catchup"],
            "namespace": "kubeflow",
            "experiment_id": body["experiment_id"],
        }
        return self.recurring[made]


def _check_run(definition: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Refuse what the server does, before it starts a workflow."""
    version = definition["schemaVersion"]
    if version != "2.1.0":
        raise refusal(
            *(500, 13),
            "Failed to create a new run: InternalServerError: Failed to create a run due to error "
            "fetching manifest: Failed to fetch a template with an invalid pipeline spec manifest: "
            "InvalidInputError: KFP only supports schema version 2.1.0, but the pipeline spec has "
            f"version {version}: pipeline spec is invalid",
        )
    declared = definition["root"].get("inputDefinitions", {}).get("parameters", {})
    why = ""
    for name, one in declared.items():
        if name not in arguments and "defaultValue" not in one and not one.get("isOptional"):
            why = f"parameter {name} is not optional, yet has neither default value nor user "
            why += "provided value"
        elif one["parameterType"].startswith("NUMBER") and isinstance(arguments.get(name), str):
            why = f"input parameter {name} requires type double or integer, but the parameter "
            why += "value is not of number value type"
    unknown = arguments.keys() - declared.keys()
    if unknown:
        names = ", ".join(sorted(unknown))
        why = f"parameter(s) provided are not required by pipeline: {names}"
    if why:
        failed = "Failed to create a new run: Failed to generate the ExecutionSpec: invalid "
        raise refusal(400, 3, f"{failed}pipeline job inputs: Invalid input error: {why}", why)


def _check_recurring(body: Mapping[str, Any]) -> None:
    cron, most = body["trigger"]["cron_schedule"]["cron"], int(body["max_concurrency"])
    fields, why = len(cron.split()), ""
    if not 5 <= fields <= 6:
        why = "Schedule cron is not a supported format(...). Error: Expected 5 to 6 fields, found"
        why += f" {fields}: {cron}"
    if not 1 <= most <= 10:
        why = "Max concurrency of a recurring run must be at least 1 and at most 10. Received "
        why += str(most)
    if why:
        failed = "Failed to create a recurring run due to conversion error: Invalid input error: "
        raise refusal(400, 3, failed + why, why)


def _uploaded_spec(form: tuple[str, bytes]) -> Any:
    """The pipeline in a form with one file, as versions hold it."""
    kind, data = form
    message = email.message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + data)
    (part,) = message.get_payload()  # type: ignore[misc]
    documents = list(yaml.safe_load_all(part.get_payload(decode=True)))  # type: ignore[union-attr,arg-type]
    if not isinstance(documents[0], dict) or "pipelineInfo" not in documents[0]:
        raise upload_refusal(400, "unknown template format")
    if len(documents) == 1:
        return documents[0]
    return {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _page(asked: Asked, key: str, found: list[Any]) -> dict[str, Any]:
    """A part of a list, and a token if there is more."""
    start, size = int(asked.query.get("page_token", 0)), int(asked.query["page_size"])
    page = {key: found[start : start + size], "total_size": len(found)} if found else {}
    if start + size < len(found):
        page["next_page_token"] = str(start + size)
    return page


_ONE = r"([\w-]+)"
_ROUTES: tuple[tuple[str, str, str], ...] = (
    ("GET", "/experiments", "list_experiments"),
    ("POST", "/experiments", "make_experiment"),
    ("GET", f"/experiments/{_ONE}", "get_experiment"),
    ("POST", "/runs", "make_run"),
    ("GET", "/runs", "list_runs"),
    ("GET", f"/runs/{_ONE}", "get_run"),
    ("POST", f"/runs/{_ONE}:retry", "retry_run"),
    ("POST", f"/runs/{_ONE}:terminate", "stop_run"),
    ("POST", "/pipelines/upload", "upload_pipeline"),
    ("POST", "/pipelines/upload_version", "upload_version"),
    ("GET", f"/pipelines/names/{_ONE}", "find_pipeline"),
    ("GET", f"/pipelines/{_ONE}/versions", "list_versions"),
    ("GET", f"/pipelines/{_ONE}/versions/{_ONE}", "get_version"),
    ("POST", "/recurringruns", "make_recurring"),
    ("GET", "/healthz", "health"),
)
