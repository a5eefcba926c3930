"""A step as a Kubeflow Pipelines (KFP) component, made from the step's one declaration.

What a component may hold is narrowed by what KFP does with it (kfp 2.17):

- The launcher runs `command` and ignores an image's ENTRYPOINT, kfp.local appends to it; so the
  images have none and every component has a command.
- Nothing handles Concat on the backend, and IfPresent works for parameters only; so neither is
  used.
- An absent optional artifact among the arguments arrives as the word `null`; so optional
  artifacts are never there and the step reads them from the executor input, `{{$}}`.
"""

import inspect
from pathlib import Path
from typing import Any, Optional

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.__main__ import GPU_STEPS
from components.step import Parameter, Step, parameters, read_docstring


def image_of(step: Step, image: str) -> str:
    """The image a step runs in: `{target}` in `image` stands for cpu or gpu.

    Raises:
        ValueError: something else stands in braces.
    """
    name = image.replace("{target}", "gpu" if step.__name__ in GPU_STEPS else "cpu")
    if "{" in name or "}" in name:
        raise ValueError(f"image {image!r}: only {{target}} can stand in braces")
    return name


def component(step: Step, image: str) -> BaseComponent:
    """The KFP container component that runs `step` in `image`."""
    declared = parameters(step)

    def container(*values: Any) -> dsl.ContainerSpec:  # KFP passes them in the declared order
        words = ["--executor-input", "{{$}}"]
        for p, value in zip(declared, values, strict=True):
            if not p.is_input or p.is_required:
                words += [p.flag, value.path if p.artifact else value]
        return dsl.ContainerSpec(
            image=image, command=["python", "-m", "components", step.__name__], args=words
        )

    container.__name__ = step.__name__
    container.__doc__ = read_docstring(step).text
    container.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                p.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=str(p.default) if isinstance(p.default, Path) else p.default,
                annotation=_annotation(p),
            )
            for p in declared
        ]
    )
    return dsl.container_component(container)


def _annotation(p: Parameter) -> Any:
    """What KFP reads as the type of a parameter; a path that is no artifact is a string."""
    if p.artifact is None:
        return str if p.type is Path else p.type
    kind = getattr(dsl, p.artifact.kind)
    if p.is_output:
        return dsl.Output[kind]
    return dsl.Input[kind] if p.is_required else Optional[dsl.Input[kind]]  # noqa: UP045 - as KFP reads it
