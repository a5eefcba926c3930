import json
import re
import subprocess
from pathlib import Path
from typing import Annotated

import pytest
import yaml
from kfp import compiler, dsl
from kfp.components import load_component_from_file

from components.__main__ import STEPS
from components.command.step import Input, Output, Step, step_parameters, step_parser
from components.kubeflow.cluster import Cluster
from components.kubeflow.component import (
    check_image_pinned,
    compile_pipeline,
    fill_commit,
    image_of_step,
    single_step_pipeline,
    step_component,
    write_components,
)
from tests.benchmarks.groups import ranking
from tools import readme
from tools.readme import _table_with_bars, flag_reference, renew_tables, step_table
from tools.scale import scale_table


def mix(
    data: Annotated[Path, Input("Dataset")],
    result: Annotated[Path, Output("Model")],
    rate: float,
    extra: Annotated[Path | None, Input("Dataset")] = None,
    count: int = 3,
    folder: Path = Path("here"),
    fast: bool = True,
) -> None:
    """Mix things.

    Args:
        data: what to mix
        result: the mixture
        rate: how fast
        extra: more of it
        count: how often
        folder: where to look
        fast: whether to hurry
    """


@pytest.fixture(scope="module")
def mixing(tmp_path_factory) -> dict:
    @dsl.pipeline(name="mixing")
    def pipeline(uri: str):
        data = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset).output
        step_component(mix, "mixer:1")(data=data, rate=0.5)

    path = tmp_path_factory.mktemp("kfp") / "mixing.yaml"
    compiler.Compiler().compile(pipeline, str(path))
    return yaml.safe_load(path.read_text())


def test_container_runs_the_shell_command(mixing):
    container = mixing["deploymentSpec"]["executors"]["exec-mix"]["container"]
    assert container["image"] == "mixer:1"
    assert container["command"] == ["python", "-m", "components", "mix"]


def test_arguments_are_flags_and_values_without_optional_artifacts(mixing):
    container = mixing["deploymentSpec"]["executors"]["exec-mix"]["container"]
    words = container["args"]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--executor-input": "{{$}}",
        "--data": "{{$.inputs.artifacts['data'].path}}",
        "--result": "{{$.outputs.artifacts['result'].path}}",
        "--rate": "{{$.inputs.parameters['rate']}}",
        "--count": "{{$.inputs.parameters['count']}}",
        "--folder": "{{$.inputs.parameters['folder']}}",
        "--fast": "{{$.inputs.parameters['fast']}}",
    }


def test_types_and_defaults_are_the_declared_ones(mixing):
    definitions = mixing["components"]["comp-mix"]["inputDefinitions"]
    assert {
        name: (one["parameterType"], one.get("defaultValue"))
        for name, one in definitions["parameters"].items()
    } == {
        "rate": ("NUMBER_DOUBLE", None),
        "count": ("NUMBER_INTEGER", 3),
        "folder": ("STRING", "here"),
        "fast": ("BOOLEAN", True),
    }
    assert "isOptional" not in definitions["artifacts"]["data"]
    assert definitions["artifacts"]["extra"]["isOptional"] is True
    outputs = mixing["components"]["comp-mix"]["outputDefinitions"]["artifacts"]
    assert outputs["result"]["artifactType"]["schemaTitle"] == "system.Model"


def mixing_by(name: str) -> Step:
    """A step with a parameter of that name."""
    source = "\n".join(
        [
            "def mix(data: Annotated[Path, Input('Dataset')], result: Annotated[Path, "
            f"Output('Model')], {name}: int = 3) -> None:",
            '    """Mix things.\n\n    Args:\n        data: d\n        result: r',
            f"        {name}: how often",
            '    """',
        ]
    )
    scope = {"Annotated": Annotated, "Path": Path, "Input": Input, "Output": Output}
    exec(source, scope)
    return scope["mix"]


@pytest.mark.parametrize("name", ["count", "times"])
def test_renaming_a_parameter_once_renames_it_everywhere(monkeypatch, name):
    step = mixing_by(name)
    monkeypatch.setattr("tools.readme.STEPS", {"mix": step})
    spec = step_component(step, "mixer:1").component_spec
    flags = step_parser(step).format_help()
    for candidate in ("count", "times"):
        is_there = candidate == name
        assert (f"--{candidate} INT" in flags) is is_there
        assert (candidate in spec.inputs) is is_there
        assert (f"--{candidate}" in spec.implementation.container.args) is is_there
        assert (f"| `--{candidate}` | int | `3` | how often |" in flag_reference()) is is_there


def test_table_shows_artifacts_and_image(monkeypatch):
    monkeypatch.setattr("tools.readme.STEPS", {"mix": mix})
    monkeypatch.setattr("tools.readme.GPU_STEPS", {"mix"})
    assert step_table().splitlines() == [
        "| step | what it does | in | out | image |",
        "|---|---|---|---|---|",
        "| `mix` | Mix things. | data, [extra] | result | gpu |",
        "",
        "Those in [ ] may be left out.",
    ]


def test_only_the_marked_parts_of_a_readme_are_renewed(monkeypatch):
    monkeypatch.setattr("tools.readme.TABLE_MAKERS", {"steps": lambda: r"a \1 table"})
    text = "before\n<!-- steps -->\nold\n<!-- /steps -->\nafter"
    made = "before\n<!-- steps -->\na \\1 table\n<!-- /steps -->\nafter"
    assert renew_tables(text) == made
    assert renew_tables(made) == made


@pytest.mark.parametrize(
    ("value", "bar", "shown"),
    [
        (1.15, "≤ 1.15", "≤ 1.15"),
        (1.1501, "≤ 1.15", "≤ 1.15 (missed)"),
        (65, "≥ 65", "≥ 65"),
        (64.9, "≥ 65", "≥ 65 (missed)"),
        (0.149, "< 15%", "< 15%"),
        (0.15, "< 15%", "< 15% (missed)"),
        (1, "100%", "100%"),
        (0.999, "100%", "100% (missed)"),
        (4, "≥ twice that", "≥ twice that"),
        (3.9, "≥ twice that", "≥ twice that (missed)"),
        (7, "–", "–"),
    ],
)
def test_a_missed_bar_is_marked(monkeypatch, value, bar, shown):
    monkeypatch.setattr("tools.readme._read_figures", lambda _: ({"a": 2, "b": value}, "here"))
    made = _table_with_bars("group", "what", [("one", "a", ".0f", "–"), ("other", "b", ".0f", bar)])
    assert made.splitlines()[-1] == f"| other | {value:.0f} | {shown} |"


def test_a_bar_that_cannot_be_read_is_a_defect(monkeypatch):
    monkeypatch.setattr("tools.readme._read_figures", lambda _: ({"a": 2}, "here"))
    with pytest.raises(AssertionError, match="'much' is no bar"):
        _table_with_bars("group", "what", [("one", "a", ".0f", "much")])


def test_the_table_of_ranking_shows_all_ratios_of_what_evaluate_asks_for(monkeypatch):
    monkeypatch.setattr(ranking, "features_of", lambda *_, **__: None)
    monkeypatch.setattr(ranking, "median_cpu_seconds", lambda *rivals, **_: [1.3] * len(rivals))
    figures = [
        *(
            one
            for place in ranking.SIZES_AND_NOISE
            for one in ranking._evaluate_figures(place, times=1)
        ),
        *ranking._evaluate_figures("market", dim=2048, times=1),
    ]
    shown = {name for _, name, _, _ in readme._RANKING}
    assert {one.name for one in figures if "seconds" not in one.name} <= shown


def test_ratios_of_the_table_of_ranking_have_their_bars_and_sizes(monkeypatch):
    made_up = dict.fromkeys((name for _, name, _, _ in readme._RANKING), 1.3)
    monkeypatch.setattr("tools.readme._read_figures", lambda _: (made_up, "here"))
    rows = readme.ranking_table().splitlines()
    at = next(place for place, row in enumerate(rows) if "all that `evaluate` asks for" in row)
    assert rows[at].endswith("Market-1501 | 1.30 | ≤ 1.20 (missed) |")
    assert rows[at + 1] == "| the same, MSMT17 | 1.30 | ≤ 1.20 (missed) |"
    assert rows[at + 2] == "| the same, CUHK03 | 1.30 | ≤ 1.35 |"
    assert sum("by cosine" in row for row in rows) == 2
    for size in ("512", "2,048"):
        of_size = [row for row in rows if f"features of {size}, Market-1501" in row]
        assert sum("as recorded" in row for row in of_size) == 6
    assert all("features of" in row for row in rows if "recorded" in row)


def test_readme_of_the_components_has_both_tables():
    text = (Path(__file__).parents[3] / "components" / "README.md").read_text("utf-8")
    assert step_table() in text
    assert flag_reference() in text


@pytest.mark.parametrize(
    ("step", "target"), [("evaluate", "cpu"), ("make_pit", "cpu"), ("train_san", "gpu")]
)
def test_image_follows_the_step(step, target):
    assert image_of_step(STEPS[step], "registry/san-{target}:abc") == f"registry/san-{target}:abc"
    assert image_of_step(STEPS[step], "registry/san@sha256:1") == "registry/san@sha256:1"


@pytest.mark.parametrize("name", STEPS)
def test_arguments_parse_back_to_the_steps_own_defaults(name):
    step = STEPS[name]
    spec = step_component(step, "image").component_spec
    words = spec.implementation.container.args
    declared = {p.flag: p for p in step_parameters(step)}
    line = []
    for flag, value in zip(words[::2], words[1::2], strict=True):
        p = declared.get(flag)
        if p is None or p.artifact or p.is_required:
            line += [flag, "x"]
        else:
            default = spec.inputs[p.name].default
            line += [flag, default if isinstance(default, str) else json.dumps(default)]
            assert "inputs.parameters" in str(value)
    parsed = vars(step_parser(step).parse_args(line))
    for p in declared.values():
        if not p.artifact and not p.is_required:
            assert parsed[p.name] == p.default
            assert type(parsed[p.name]) is type(p.default)


@pytest.mark.parametrize("image", ["san:{tag}", "san:{target", "{}"])
def test_image_with_another_placeholder_is_refused(image):
    with pytest.raises(ValueError, match=r"only \{target\} may be in braces"):
        image_of_step(STEPS["evaluate"], image)


def test_two_images_by_digest_are_distinguished():
    both = "cpu=r/san@sha256:1,gpu=r/san@sha256:2"
    assert image_of_step(STEPS["evaluate"], both) == "r/san@sha256:1"
    assert image_of_step(STEPS["train_san"], both) == "r/san@sha256:2"
    with pytest.raises(ValueError, match="not of the form cpu=NAME,gpu=NAME"):
        image_of_step(STEPS["train_san"], "cpu=r/san@sha256:1")


@pytest.mark.parametrize(
    "image",
    [
        "registry:5000/san-pipeline",
        "san-pipeline:latest",
        "san-pipeline:{target}",
        "san-pipeline:{target}-latest",
        "san-pipeline:latest-{target}",
        "san-pipeline:Latest",
        "san-pipeline:latest-cuda12",
        "cpu=r/san:a,gpu=r/san",
        "cpu=r/san:latest-gpu,gpu=r/san:a",
    ],
)
def test_image_that_may_change_is_refused(image):
    with pytest.raises(ValueError, match="is not pinned; name a tag that is never moved"):
        check_image_pinned(image)


@pytest.mark.parametrize("end", ["dirty", "unknown"])
def test_image_of_uncommitted_changes_is_refused(end):
    with pytest.raises(ValueError, match=f"r/san:cpu-0123-{end} is of uncommitted changes"):
        check_image_pinned(f"r/san:{{target}}-0123-{end}")


@pytest.mark.parametrize(
    "digest",
    ["sha256:1", "sha256:" + "g" * 64, "sha256:" + "0" * 65, "sha256:" + "A" * 64, "md5:1", ""],
)
def test_digest_that_is_none_is_refused(digest):
    with pytest.raises(ValueError, match="a digest is @sha256: and 64 hexadecimal digits"):
        check_image_pinned(f"r/san:1@{digest}")


@pytest.mark.parametrize(
    "image", ["cpu=r/a:1,gpu=r/a:2,cpu=r/b:1", "cpu=r/a:1,gpu=r/a:2,gpu=r/a:2"]
)
def test_image_given_twice_for_a_target_is_refused(image):
    with pytest.raises(ValueError, match="is not of the form cpu=NAME,gpu=NAME"):
        check_image_pinned(image)


DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    "image",
    [
        "registry:5000/san-pipeline:{target}-0123456789ab",
        "san-pipeline:1.2",
        f"cpu=r/san@{DIGEST},gpu=r/san@{DIGEST}",
        f"r/san:latest@{DIGEST}",
    ],
)
def test_image_that_stays_what_it_is_is_taken(image):
    check_image_pinned(image)


def test_commit_is_that_of_the_checkout():
    described = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert (
        fill_commit("san:{target}-{commit}").removesuffix("-dirty") == f"san:{{target}}-{described}"
    )
    assert fill_commit("san:{target}-1") == "san:{target}-1"


def test_commit_without_a_checkout_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr("components.command.code.ROOT", tmp_path)
    with pytest.raises(ValueError, match="is not a git checkout, so the commit is unknown"):
        fill_commit("san:{commit}")


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A folder with the component file of every step."""
    folder = tmp_path_factory.mktemp("components")
    write_components(folder, "san:{target}-1", Cluster(gpus={"train_san": 2}))
    return folder


@pytest.mark.parametrize("name", STEPS)
def test_component_file_of_a_step_loads_and_runs_its_command(written, name):
    loaded = load_component_from_file(str(written / name / "component.yaml"))
    spec = loaded.component_spec
    assert set(spec.inputs or {}) == {
        p.name for p in step_parameters(STEPS[name]) if not p.is_output
    }
    assert set(spec.outputs) == {p.name for p in step_parameters(STEPS[name]) if p.is_output}
    assert spec.implementation.container.command[-2:] == ["components", name]
    assert ("torch.distributed.run" in spec.implementation.container.command) is (
        name == "train_san"
    )


def test_one_step_is_fed_by_importers_and_never_cached(tmp_path):
    inputs = {"dataset": "s3://b/reid", "textures": "s3://b/textures"}
    pipeline = single_step_pipeline("train_san", inputs, "san:{target}-1")
    (document,) = compile_pipeline(pipeline, tmp_path / "one.yaml")
    steps = document["root"]["dag"]["tasks"]
    assert document["pipelineInfo"]["name"] == "san-train-san"
    assert "enableCache" not in steps["train-san"]["cachingOptions"]
    found = {
        steps[artifact["taskOutputArtifact"]["producerTask"]]["inputs"]["parameters"]["uri"][
            "runtimeValue"
        ]["constant"]
        for artifact in steps["train-san"]["inputs"]["artifacts"].values()
    }
    assert found == set(inputs.values())
    declared = document["root"]["inputDefinitions"]["parameters"]
    assert set(declared) == {
        p.name for p in step_parameters(STEPS["train_san"]) if p.artifact is None
    }
    assert declared["recipe"]["description"].startswith("training recipe; ")


@pytest.mark.parametrize(
    ("step", "inputs", "message"),
    [
        ("train_sam", {}, "no step 'train_sam'; did you mean 'train_san'?"),
        (
            "train_san",
            {"data": "s3://b/d"},
            "train_san has no input 'data'; did you mean 'dataset'",
        ),
        ("evaluate", {"features": "s3://b/f"}, "evaluate needs --input dataset=URI, "),
    ],
)
def test_one_step_needs_its_inputs(step, inputs, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        single_step_pipeline(step, inputs, "san:1")


def test_short_times_of_large_work_have_a_decimal_and_none_is_zero(monkeypatch):
    monkeypatch.setattr("tools.scale.preset_costs", lambda _: [])
    measured = {"nodes.texture_cpu_seconds": 0.25, "nodes.embed_cpu_seconds": 0.36}
    rows = scale_table({}, measured, "here").splitlines()
    # 32,621 x 0.25 s are 2.27 hours, over 64 cores 2.12 minutes, over 256 cores half a minute
    assert "| 2.3 | 2.1 min | < 1 min | texture workers |" in rows[2]
    # a million x 0.36 s are 100 hours, over 64 cores 1.56 hours, over 256 cores 23 minutes
    assert "| 100 | 1.6 h | 23 min | feature workers |" in rows[3]
