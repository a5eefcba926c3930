"""Making a KFP pipeline from a graph; the graphs themselves are in pipeline.py."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

from kfp.dsl.graph_component import GraphComponent

from components.kubeflow.cluster import DEFAULT_CLUSTER, Cluster
from components.kubeflow.component import compile_pipeline, make_pipeline, task_factories
from components.launch.parameters import FEATURE_PARAMETERS, graph_parameters

# `{target}` is cpu or gpu, after the targets of docker/Dockerfile.
IMAGE = "san-pipeline:{target}"
# On a cluster, an image name must always mean the same content; `make images` makes these names.
PINNED_IMAGE = "san-pipeline:{target}-{commit}"


@dataclass(frozen=True)
class Graph:
    """The tasks of a pipeline, before it is compiled.

    Attributes:
        name: its name; the pipeline is `san-NAME`.
        add_tasks: makes the tasks. Its arguments are the steps, each of which makes a task when it
            is called (`steps.train_san(...)`), and the pipeline's parameters (`p.seed`). Kubeflow
            shows its docstring as the pipeline's description.
        parameters: parameters of the pipeline besides those of every graph.
        defaults: its own defaults, where they differ from the usual ones.
        trains: whether it trains a ReID network.
    """

    name: str
    add_tasks: Callable[[SimpleNamespace, SimpleNamespace], None]
    parameters: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = True

    def with_feature_workers(self, workers: Sequence[str]) -> "Graph":
        """The same graph, but that the test images are embedded by several workers.

        workers: by default, such as 0/2 and 1/2.
        """
        return replace(
            self,
            parameters=(*self.parameters, *FEATURE_PARAMETERS),
            defaults={**self.defaults, "feature_workers": list(workers)},
        )

    def pipeline(self, image: str = IMAGE, cluster: Cluster = DEFAULT_CLUSTER) -> GraphComponent:
        """The KFP pipeline, with its steps in `image` and its pods as `cluster` says."""
        steps = SimpleNamespace(**task_factories(image, cluster))
        return make_pipeline(
            self.name,
            (self.add_tasks.__doc__ or "").strip(),
            graph_parameters(self.parameters, self.defaults, trains=self.trains),
            lambda values: self.add_tasks(steps, SimpleNamespace(**values)),
        )

    def compile(
        self, output: Path, *, image: str = IMAGE, cluster: Cluster = DEFAULT_CLUSTER
    ) -> dict[str, Any]:
        """Compile it to a YAML file; return the pipeline's definition."""
        return compile_pipeline(self.pipeline(image, cluster), output)[0]

    def compiled(self, *, image: str = IMAGE) -> tuple[dict[str, Any], str]:
        """The pipeline's definition, and the YAML file that it is read from."""
        with TemporaryDirectory() as folder:
            file = Path(folder, "pipeline.yaml")
            return self.compile(file, image=image), file.read_text("utf-8")
