"""Parsers for the command line options about pods.

A parser raises a ValueError that says what would be right; `parse_value` adds what was found and
for which option.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from posixpath import normpath
from typing import NamedTuple, TypeVar

from components.__main__ import STEPS
from components.command.suggestion import suggestion

T = TypeVar("T")

# The keys of a secret given without a list; each may be missing.
S3_KEYS = {
    name: name
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    )
}

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_DOMAIN = r"[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?"
_RESOURCE_NAME = _DOMAIN  # as Kubernetes names secrets and claims
# The driver names a pod's volume after its secret or map, so that name has no dots.
_VOLUME_NAME = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_VARIABLE_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_LABEL = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_LABEL_NAME = rf"(?:{_DOMAIN}/)?{_LABEL}"
_LABEL_VALUE = rf"(?:{_LABEL})?"
_DEVICE_NAME = rf"{_DOMAIN}/{_LABEL}"
NO_SECRET = "none"  # the word for not using the installation's own secret


class Toleration(NamedTuple):
    """A taint that a step tolerates; an empty value is any value, an empty effect every effect."""

    key: str
    value: str
    effect: str


class Secret(NamedTuple):
    """A secret, and the environment variable that each of its keys sets.

    With `is_optional`, a key (or the secret itself) may be missing; then the variable is not set.
    """

    name: str
    variables: Mapping[str, str]
    is_optional: bool


# The default credentials for minio:// in every pod: the keys of Kubeflow Pipelines' own object
# store, which are in the namespace of the run under this name.
INSTALLATION_SECRET = Secret(
    "mlpipeline-minio-artifact",
    {"accesskey": "MINIO_ACCESS_KEY", "secretkey": "MINIO_SECRET_KEY"},
    is_optional=True,
)


def parse_value(flag: str, text: str, read: Callable[[str], T], *, step: str = "") -> T:
    """A parsed value; errors name the option and the step."""
    try:
        return read(text)
    except ValueError as error:
        shown = f"{step}={text}" if step else text
        raise ValueError(f"{flag} {shown}: {error}") from None


def parse_by_step(
    flag: str, words: Sequence[str], steps: Collection[str], read: Callable[[str], T]
) -> dict[str, T]:
    """Values by step; one for a named step overrides one for every step."""
    check_unique(f"{flag} of", [word.rpartition("=")[0] or "all steps" for word in words])
    found: dict[str, T] = {}
    for word in sorted(words, key=lambda word: "=" in word):
        step, equals, text = word.rpartition("=")
        if equals and step not in steps:
            raise ValueError(f"{flag} {word}: no such step{suggestion(step, sorted(steps))}")
        found |= dict.fromkeys([step] if equals else steps, parse_value(flag, text, read))
    return found


def split_step(word: str) -> tuple[str, str]:
    """The step and the rest of `STEP=REST`; no step and the whole word if it names none."""
    step, equals, rest = word.partition("=")
    return (step, rest) if equals and step in STEPS else ("", word)


def parse_pairs_by_step(
    flag: str, words: Sequence[str], pool: Collection[str], read: Callable[[str], tuple[str, str]]
) -> dict[str, dict[str, str]]:
    """Names and values by step: those for all steps of `pool`, and those of a named step.

    A named step need not be in the pool. It gets both; if they share a name, its own value counts.
    """
    split = [split_step(word) for word in words]
    pairs = [(step, *parse_value(flag, text, read, step=step)) for step, text in split]
    check_unique(flag, [f"{step}={name}" if step else name for step, name, _ in pairs])
    found: dict[str, dict[str, str]] = {}
    for step, name, value in sorted(pairs, key=lambda pair: bool(pair[0])):
        for one in [step] if step else pool:
            found.setdefault(one, {})[name] = value
    return found


def parse_tolerations_by_step(
    flag: str, words: Sequence[str], pool: Collection[str]
) -> dict[str, list[Toleration]]:
    """The taints that each step tolerates: those for all steps of `pool` and those of its own."""
    check_unique(flag, words)
    found: dict[str, list[Toleration]] = {}
    for word in words:
        step, text = split_step(word)
        taint = parse_value(flag, text, parse_toleration, step=step)
        for one in [step] if step else pool:
            found.setdefault(one, []).append(taint)
    return {step: list(dict.fromkeys(taints)) for step, taints in found.items()}


def parse_label(text: str) -> tuple[str, str]:
    """A label's name and value, as Kubernetes allows them."""
    name, equals, value = text.partition("=")
    if "=" in value:
        raise ValueError(f"no such step{suggestion(name, STEPS)}")
    if not equals or not re.fullmatch(_LABEL_NAME, name) or not re.fullmatch(_LABEL_VALUE, value):
        raise ValueError("not of the form [STEP=]LABEL=VALUE")
    return name, value


def parse_annotation(text: str) -> tuple[str, str]:
    """An annotation's name, and its value, which may be any text."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(_LABEL_NAME, name):
        raise ValueError("not of the form [STEP=]NAME=VALUE")
    return name, value


def parse_toleration(text: str) -> Toleration:
    """A taint: its key, and its value and effect if given."""
    taint, colon, effect = text.partition(":")
    key, _, value = taint.partition("=")
    if "=" in value:
        raise ValueError(f"no such step{suggestion(key, STEPS)}")
    is_name = re.fullmatch(_LABEL_NAME, key) and re.fullmatch(_LABEL_VALUE, value)
    if not is_name or (colon and effect not in _TAINT_EFFECTS):
        raise ValueError(
            f"not of the form [STEP=]KEY[=VALUE][:EFFECT], EFFECT one of {_TAINT_EFFECTS}"
        )
    return Toleration(key, value, effect)


def parse_node_count(text: str) -> int:
    """A number of nodes from 2."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) < 2:
        raise ValueError("not a number of nodes from 2; one needs no --nodes")
    return int(text)


def parse_runtime(text: str) -> str:
    """The name of a training runtime, optionally after its kind."""
    if not re.fullmatch(rf"((Cluster)?TrainingRuntime/)?{_RESOURCE_NAME}", text):
        raise ValueError("not of the form NAME or TrainingRuntime/NAME")
    return text


def parse_device(text: str) -> str:
    """The resource name of a GPU in Kubernetes, which always contains its vendor."""
    if not re.fullmatch(_DEVICE_NAME, text):
        raise ValueError("not the name of a device, such as nvidia.com/gpu")
    return text


def parse_variable(text: str) -> tuple[str, str]:
    """An environment variable; messages do not repeat its value."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(_VARIABLE_NAME, name):
        raise ValueError(f"--env {name}: not of the form NAME=VALUE")
    if re.search("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL", name.upper()):
        raise ValueError(
            f"--env {name}: a compiled pipeline must not contain credentials; use --secret"
        )
    return name, value


def parse_secret(text: str) -> Secret:
    """A secret, and the variables that its keys set."""
    name, colon, listed = text.partition(":")
    pairs = [word.partition("=")[::2] for word in listed.split(",")] if colon else []
    if not re.fullmatch(_RESOURCE_NAME, name) or not all(
        re.fullmatch(r"[-.A-Za-z0-9_]+", key) and re.fullmatch(_VARIABLE_NAME, variable)
        for key, variable in pairs
    ):
        raise ValueError("not of the form NAME or NAME:KEY=VARIABLE,...")
    check_unique("key", [key for key, _ in pairs])
    return Secret(name, dict(pairs) or S3_KEYS, is_optional=not pairs)


def parse_mount(text: str) -> tuple[str, str]:
    """The name of a claim, map or secret that a pod mounts, and the folder."""
    name, _, folder = text.partition(":")
    is_folder = re.fullmatch(r"(/[A-Za-z0-9_.-]+)+", folder) and normpath(folder) == folder
    if not re.fullmatch(_VOLUME_NAME, name) or not is_folder:
        raise ValueError("not of the form NAME:/FOLDER, NAME without dots, FOLDER without . and ..")
    return name, folder


def without_variables(secret: Secret, env: Collection[str]) -> Secret:
    """A secret without the variables in `env`, if it has no list of its own."""
    if not secret.is_optional:
        return secret
    kept = {key: name for key, name in secret.variables.items() if name not in env}
    return secret._replace(variables=kept)


def give_minio_keys(secrets: Sequence[Secret]) -> bool:
    """Whether secrets set credentials for minio://; two halves from two secrets do not combine."""
    own = set(INSTALLATION_SECRET.variables.values())
    return any(own.intersection(secret.variables.values()) for secret in secrets)


def check_unique(what: str, names: Sequence[str]) -> None:
    """Raise ValueError if a name is given twice."""
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{what} {name} is given {count} times; give it once")
