"""A step as a Kubeflow Pipelines (KFP) component, made from the step's declaration.

KFP (kfp 2.17) restricts what a component may contain:

- The launcher runs `command` and ignores an image's ENTRYPOINT; kfp.local appends to it. So the
  images have none, and every component has a command.
- The backend does not handle Concat, and IfPresent works for parameters only. So neither is used.
- An absent optional artifact among the arguments arrives as the word `null`. So optional artifacts
  are never arguments; the step reads them from the executor input, `{{$}}`.
"""

import inspect
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import yaml
from kfp import compiler, dsl
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.graph_component import GraphComponent

from components.__main__ import STEPS
from components.command.code import ROOT, git_commit
from components.command.step import Parameter, Step, read_docstring, step_parameters
from components.command.suggestion import suggestion
from components.kubeflow.caching import is_cacheable
from components.kubeflow.cluster import DEFAULT_CLUSTER, Cluster
from components.kubeflow.nodes.train_job import train_job_template
from components.process.gpu import GPU_STEPS
from san_core.images.shard import canonical_json


def image_of_step(step: Step, image: str) -> str:
    """The image of a step: `{target}` in `image` stands for cpu or gpu.

    `image` may also be two images, `cpu=NAME,gpu=NAME`, as digests need.

    Raises:
        ValueError: another word is in braces, or one of two images is missing.
    """
    return image_of_target("gpu" if step.__name__ in GPU_STEPS else "cpu", image)


def image_of_target(target: str, image: str) -> str:
    """The image of a target, cpu or gpu; `image` and errors as for `image_of_step`."""
    if image.startswith(("cpu=", "gpu=")):
        both = dict(word.partition("=")[::2] for word in image.split(","))
        if set(both) != {"cpu", "gpu"} or image.count(",") != 1:
            raise ValueError(f"image {image!r} is not of the form cpu=NAME,gpu=NAME")
        image = both[target]
    name = image.replace("{target}", target)
    if "{" in name or "}" in name:
        raise ValueError(f"image {image!r}: only {{target}} may be in braces")
    return name


def fill_commit(image: str) -> str:
    """The image's name with `{commit}` replaced by this checkout's, as in `make images`.

    Raises:
        ValueError: this is not a checkout of a git repository.
    """
    if "{commit}" not in image:
        return image
    try:
        return image.replace("{commit}", git_commit())
    except (OSError, subprocess.CalledProcessError):
        raise ValueError(
            f"image {image}: {ROOT} is not a git checkout, so the commit is unknown; "
            "give --image with a tag or digest"
        ) from None


def check_image_pinned(image: str) -> None:
    """Refuse an image name whose content may change: KFP would reuse old results from its cache.

    The image's name, not its content, is part of KFP's cache key.

    Raises:
        ValueError: it has no tag or digest, an invalid digest, or a tag that does not name a
            version or a commit without changes.
    """
    for target, step in (("cpu", "evaluate"), ("gpu", "train_san")):
        name = image_of_step(STEPS[step], image)
        base, at, digest = name.partition("@")
        if at and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
            raise ValueError(f"image {name}: a digest is @sha256: and 64 hexadecimal digits")
        tag = base.rpartition("/")[2].partition(":")[2]
        repository = base.removesuffix(f":{tag}")
        if not at and tag.lower().endswith(("-dirty", "-unknown")):
            raise ValueError(
                f"image {name} is of uncommitted changes, so its tag is not pinned; commit them, "
                f"and `make push` makes {repository}:{target}-COMMIT"
            )
        words = set(re.split(r"[-._]+", tag.lower()))
        if not at and ("latest" in words or words <= {"", "cpu", "gpu"}):
            raise ValueError(
                f"image {name} is not pinned; name a tag that is never moved, such as "
                f"{repository}:{target}-COMMIT, or a digest @sha256:..."
            )


def compile_pipeline(pipeline: BaseComponent, output: Path) -> list[dict[str, Any]]:
    """Compile a pipeline to a YAML file; return its documents.

    The first is the pipeline's definition. The second is the platform specification, if the pods
    have requirements that only Kubernetes knows.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(pipeline, str(output))
    return list(yaml.safe_load_all(output.read_text("utf-8")))


def task_factories(image: str, cluster: Cluster) -> dict[str, Callable[..., dsl.PipelineTask]]:
    """A function for every step that makes a task of it, with its image and its pods' requirements.

    A task passes every parameter, including defaults: the driver of KFP 2.17.0 fills in the command
    line before it adds a component's defaults, and fails if one is missing. A task is not cached if
    it may read anything but artifacts. The task of a step on several nodes is a small pod that has
    Kubeflow Trainer start the nodes, and follows them.
    """

    def factory_of(name: str) -> Callable[..., dsl.PipelineTask]:
        own_image = image_of_step(STEPS[name], image)
        if name in cluster.nodes:
            job = train_job_template(cluster, name, own_image)
            made = component_on_nodes(STEPS[name], image_of_target("cpu", image), job)
        else:
            made = step_component(STEPS[name], own_image, processes=cluster.process_count(name))
        defaults = _default_arguments(STEPS[name])

        def make_task(**arguments: Any) -> dsl.PipelineTask:
            task = cluster.configure(made(**(defaults | arguments)), name)
            return task.set_caching_options(is_cacheable(STEPS[name], arguments))

        return make_task

    return {name: factory_of(name) for name in STEPS}


def write_components(folder: Path, image: str, cluster: Cluster) -> list[Path]:
    """Write FOLDER/STEP/component.yaml for every step, for people who compose their own pipelines.

    The requirements of pods are set in those pipelines; only the number of processes is used here.
    """
    files = []
    for name, step in STEPS.items():
        made = step_component(
            step, image_of_step(step, image), processes=cluster.process_count(name)
        )
        files.append(folder / name / "component.yaml")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        compiler.Compiler().compile(made, str(files[-1]))
    return files


def single_step_pipeline(
    name: str, inputs: Mapping[str, str], image: str, cluster: Cluster = DEFAULT_CLUSTER
) -> GraphComponent:
    """A pipeline of one step, with imported input artifacts; its settings are parameters.

    KFP runs it without the cache.

    Args:
        name: the step.
        inputs: the URI of each input artifact.
        image: as for `image_of_step`.
        cluster: the requirements of its pod.

    Raises:
        ValueError: a step or input is unknown, or a required input is missing.
    """
    if name not in STEPS:
        raise ValueError(f"no step {name!r}{suggestion(name, STEPS)}")
    declared = step_parameters(STEPS[name])
    artifacts = {p.name: p for p in declared if p.is_input}
    for given in inputs:
        if given not in artifacts:
            raise ValueError(f"{name} has no input {given!r}{suggestion(given, artifacts)}")
    for p in artifacts.values():
        if p.is_required and p.name not in inputs:
            raise ValueError(f"{name} needs --input {p.name}=URI, {p.help}")

    def graph(given: Mapping[str, Any]) -> None:
        imported = {
            one: dsl.importer(
                artifact_uri=uri, artifact_class=_artifact_class(artifacts[one]), reimport=False
            ).output
            for one, uri in inputs.items()
        }
        task_factories(image, cluster)[name](**imported, **given).set_caching_options(False)

    text = read_docstring(STEPS[name]).text
    settings = [p for p in declared if p.artifact is None]
    return make_pipeline(name.replace("_", "-"), text, settings, graph)


def make_pipeline(
    name: str,
    text: str,
    settings: Sequence[Parameter],
    graph: Callable[[Mapping[str, Any]], None],
) -> GraphComponent:
    """A KFP pipeline with these parameters; `graph` makes its tasks from their values by name.

    Kubeflow shows `text` and, beside each field, its parameter's help.
    """

    def pipeline(*values: Any) -> None:
        graph({p.name: value for p, value in zip(settings, values, strict=True)})

    described = [f"    {p.name}: {p.help}" for p in settings]
    pipeline.__doc__ = "\n".join([text, "", "Args:", *described])
    pipeline.__signature__ = _kfp_signature(settings)  # type: ignore[attr-defined]
    return dsl.pipeline(name=f"san-{name}")(pipeline)


def step_component(step: Step, image: str, *, processes: int = 1) -> BaseComponent:
    """The KFP container component that runs `step` in `image`.

    processes: the number of its processes in the container, started by torchrun.
    """
    command = ["python", "-m", "components", step.__name__]
    if processes > 1:
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command = ["python", "-m", *torchrun, *command[1:]]
    return _component(step, image, command)


def component_on_nodes(step: Step, image: str, template: Mapping[str, Any]) -> BaseComponent:
    """The KFP container component that has Trainer run `step`, and follows it in `image`.

    template: the TrainJob, from `train_job_template`.
    """
    # Kubernetes replaces $(NAME) in the command of a pod, even by a value from a secret.
    job = canonical_json(template).decode().replace("$", "\\u0024")
    command = ["python", "-m", "components", "on_nodes", "--job", job, step.__name__]
    return _component(step, image, command)


def _component(step: Step, image: str, command: list[str]) -> BaseComponent:
    """A component with the declaration of `step`, whose arguments follow `command`."""
    declared = step_parameters(step)

    def container(*values: Any) -> dsl.ContainerSpec:  # KFP passes them in the declared order
        words = ["--executor-input", "{{$}}"]
        for p, value in zip(declared, values, strict=True):
            if not p.is_input or p.is_required:  # KFP always gives an output a path
                words += [p.flag, value.path if p.artifact else value]
        return dsl.ContainerSpec(image=image, command=command, args=words)

    container.__name__ = step.__name__
    container.__doc__ = read_docstring(step).text
    container.__signature__ = _kfp_signature(declared)  # type: ignore[attr-defined]
    return dsl.container_component(container)


def _default_arguments(step: Step) -> dict[str, Any]:
    """The default that KFP passes for each parameter that is not given; artifacts have none."""
    return {
        p.name: _kfp_default(p)
        for p in step_parameters(step)
        if not p.artifact and not p.is_required
    }


def _kfp_default(p: Parameter) -> Any:
    """A parameter's default in KFP's form: a path is a string."""
    return str(p.default) if isinstance(p.default, Path) else p.default


def _kfp_signature(declared: Sequence[Parameter]) -> inspect.Signature:
    """The parameters as KFP reads them from a function."""
    return inspect.Signature(
        [
            inspect.Parameter(
                p.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if p.is_output else _kfp_default(p),
                annotation=_kfp_annotation(p),
            )
            for p in declared
        ]
    )


def _artifact_class(p: Parameter) -> Any:
    """The KFP class of an artifact."""
    assert p.artifact is not None
    return getattr(dsl, p.artifact.kind)


def _kfp_annotation(p: Parameter) -> Any:
    """A parameter's type in KFP's form; a path that is not an artifact is a string."""
    if p.artifact is None:
        return str if p.type is Path else p.type
    kind = _artifact_class(p)
    if p.is_output:
        return dsl.Output[kind]
    return dsl.Input[kind] if p.is_required else Optional[dsl.Input[kind]]  # noqa: UP045 - as KFP reads it
