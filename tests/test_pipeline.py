"""The compiled graphs, and the commands that compile and run them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.__main__ import STEPS
from components.command.step import step_parameters, step_parser
from components.launch.commands import check_beforehand
from components.launch.parameters import PARAMETER_MEANINGS
from components.launch.presets import PRESETS, pipeline_arguments
from components.process.gpu import GPU_STEPS
from components.process.signals import Terminated
from components.runner import local
from components.runner.folder import RunError
from components.runner.ir import Task, pipeline_parameters, read_tasks
from components.storage.sources import PLACE_PARAMETERS
from pipeline import GRAPHS, main
from san_core.recipes import RECIPES
from tests.write_golden import CLUSTER_IMAGE

ROOT = Path(__file__).parents[1]
GOLDEN = Path(__file__).parent / "golden"
REQUIRED = {
    "destination": "/d",
    "checkpoint": "/c",
    "texture_source": "/t",
    "model": "/m",
    "feature_parts": "/f",
}
# Recipes without textures, and what the generator that ships fits: its textures and its network.
OTHER_DEFAULTS = {
    ("baseline", "san_recipe"),
    ("ready", "san_overrides"),
    ("pretrained", "san_recipe"),
    ("pretrained", "image_height"),
}


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Every graph as its compiled document."""
    folder = tmp_path_factory.mktemp("compiled")
    return {graph: GRAPHS[graph].compile(folder / f"{graph}.yaml") for graph in GRAPHS}


@pytest.fixture(scope="session")
def spread(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """Every graph as the document that has two workers embed the test images."""
    folder = tmp_path_factory.mktemp("spread")
    return {
        name: graph.with_feature_workers(["0/2", "1/2"]).compile(folder / f"{name}.yaml")
        for name, graph in GRAPHS.items()
    }


def plan(document: dict[str, Any], **arguments: Any) -> dict[str, Task]:
    required = {name: REQUIRED[name] for name in pipeline_parameters(document) if name in REQUIRED}
    return {task.name: task for task in read_tasks(document, {**required, **arguments})}


def test_folders_are_meant_from_where_the_command_is_given(compiled, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["source=my data", "destination=s3://bucket/textures"]
    chosen = pipeline_arguments(PRESETS["demo"], compiled["full"], words, folder=Path("runs/demo"))
    assert chosen["source"] == str(tmp_path / "my data")
    assert chosen["destination"] == "s3://bucket/textures"
    assert chosen["checkpoint"] == str(tmp_path / "runs/.store/checkpoints")
    assert chosen["dataset"] == "synthetic"


def test_file_that_overrides_name_is_meant_from_where_the_command_is_given(
    compiled, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ["san_overrides=epochs=3 pretrained=w.pth", "pg_overrides=pretrained=none"]
    chosen = pipeline_arguments(PRESETS["demo"], compiled["full"], words, folder=Path("runs/demo"))
    assert chosen["san_overrides"] == f"epochs=3 pretrained={tmp_path}/w.pth"
    assert chosen["pg_overrides"] == "pretrained=none"


def test_every_place_of_a_graph_or_step_is_known_as_one(compiled):
    """A place is what its description calls a folder, a file of data or a URI."""
    described = {**PARAMETER_MEANINGS}
    for step in STEPS.values():
        described |= {p.name: p.help for p in step_parameters(step) if p.artifact is None}
    assert set(PLACE_PARAMETERS) == {
        name for name, text in described.items() if re.match("folder|npz file", text)
    }


@pytest.mark.parametrize("name", ["target_source", "texture_source", "source"])
def test_every_source_is_meant_from_where_the_command_is_given(
    compiled, tmp_path, monkeypatch, name
):
    monkeypatch.chdir(tmp_path)
    words = [f"{name}=here"]
    chosen = pipeline_arguments(
        PRESETS["demo"], compiled["textures"], words, folder=Path("runs/demo")
    )
    assert chosen[name] == str(tmp_path / "here")


@pytest.mark.parametrize(
    "preset",
    ["demo", "synthetic", "small", "small-san", "demo-baseline", "synthetic-baseline"],
)
def test_a_preset_scores_no_untrained_encoder_of_an_onnx_file(compiled, tmp_path, capsys, preset):
    def chosen(model: str, *words: str) -> dict[str, Any]:
        words = (f"model={model}", *words)
        return pipeline_arguments(PRESETS[preset], compiled["score"], words, folder=tmp_path)

    assert chosen("model")["references"] is True
    assert capsys.readouterr().out == ""
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "encoder.onnx").write_bytes(b"")
    for place in ("x.onnx", "s3://bucket/x.onnx", str(tmp_path / "taken")):
        assert "references" not in chosen(place)
        check_beforehand(chosen(place), compiled["score"])
        told = f"left out, as the ONNX file {place} has no untrained encoder: references\n"
        assert capsys.readouterr().out == 2 * told
        given = chosen(place, "references=true")
        assert capsys.readouterr().out == ""
        message = f"{given['model']} is an ONNX file, which has none; leave references out"
        with pytest.raises(ValueError, match=re.escape(message)):
            check_beforehand(given, compiled["score"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("san_overrides=epoch=3", "no recipe field 'epoch'; did you mean 'epochs'?"),
        ("pg_recipe=nope", "no recipe 'nope'"),
        ("dataset=market1501", "dataset market1501 needs --param source=PLACE"),
        ('workers=["0/2", "0/2"]', "workers are 0/2, 0/2; 2 of them must be 0/2, 1/2"),
        ("feature_workers=0", "feature_workers is 0: it must be 1 to 1,000"),
        (
            'feature_workers=["0/2", "0/2"]',
            "feature_workers are 0/2, 0/2; 2 of them must be 0/2, 1/2",
        ),
        ("protocol=best", "no protocol 'best'"),
        (
            "dataset=partial",
            "dataset partial cannot be used for training: it has only queries and a",
        ),
        ("dataset=images", "dataset images cannot be used for training: it has no identities; gen"),
        ("target=images", "target images has no identities, so it cannot be used"),
        ("target=synthetic", "dataset and target are both synthetic; leave the target out"),
        ("target_source=x", "x, but target is empty: name the data set there"),
        ("target=partial", "target partial needs --param target_source=PLACE"),
    ],
)
def test_mistake_of_a_late_step_is_found_before_the_first(tmp_path, capsys, word, message):
    command = ["run", "--preset", "demo", "--runs", str(tmp_path), "--param", word]
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "demo" / "make_pit").exists()


@pytest.mark.parametrize("graph", GRAPHS)
def test_compiled_graph_is_the_golden_one(compiled, graph):
    """Renew it by `make golden`."""
    _check_golden(compiled[graph], graph)


def test_compiled_graph_of_two_feature_workers_is_the_golden_one(spread):
    _check_golden(spread["score"], "feature_workers")


def _check_golden(document, name):
    golden = yaml.safe_load((GOLDEN / f"{name}.yaml").read_text("utf-8"))
    assert {**document, "sdkVersion": ""} == {**golden, "sdkVersion": ""}


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_has_its_name(compiled, graph):
    assert compiled[graph]["pipelineInfo"]["name"] == f"san-{graph}"


@pytest.mark.parametrize(
    ("graph", "names"),
    [
        (
            "full",
            "make_pit prepare_reid check_reid train_san_pg generate_textures-0 seal_textures "
            "train_san extract_features evaluate",
        ),
        (
            "ready",
            "prepare_reid take_generator check_reid generate_textures-0 seal_textures train_san "
            "extract_features evaluate",
        ),
        ("textures", "prepare_reid check_reid seal_textures train_san extract_features evaluate"),
        (
            "pretrained",
            "prepare_reid take_generator check_reid train_san extract_features evaluate",
        ),
        ("baseline", "prepare_reid check_reid train_san extract_features evaluate"),
        ("score", "prepare_reid take_model extract_features evaluate"),
    ],
)
def test_graph_has_its_steps_in_data_flow_order(compiled, graph, names):
    assert list(plan(compiled[graph])) == names.split()


@pytest.mark.parametrize("graph", GRAPHS)
def test_nothing_is_computed_before_the_counts_of_the_data_set_are_checked(compiled, graph):
    tasks = plan(compiled[graph])
    heavy = {"train_san_pg", "generate_textures-0", "train_san"} & set(tasks)
    heavy |= {"seal_textures"} if graph == "textures" else set()
    assert all("check_reid" in tasks[name].after for name in heavy)


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_command_parses_by_the_steps_own_command_line(compiled, spread, graph):
    for task in (*plan(compiled[graph]).values(), *plan(spread[graph]).values()):
        assert task.words[:3] == ("python", "-m", "components")
        step = STEPS[task.words[3]]
        given = vars(step_parser(step).parse_args(task.words[4:]))
        assert given.pop("executor_input") == "{{$}}"
        for p in step_parameters(step):
            if p.artifact is None:
                assert given[p.name] == task.parameters[p.name]
                assert type(given[p.name]) is p.type
            elif p.is_output:
                assert given[p.name] == Path(f"{{{{$.outputs.artifacts['{p.name}'].path}}}}")
            elif p.is_required:
                assert p.name in task.inputs
            else:
                assert given[p.name] is None


def test_workers_share_the_work_and_seal_waits_for_all_of_them(compiled):
    found = plan(compiled["full"], workers=["0/3", "1/3", "2/3"])
    workers = [found[f"generate_textures-{number}"] for number in range(3)]
    assert [task.parameters["worker"] for task in workers] == ["0/3", "1/3", "2/3"]
    assert {task.name for task in workers} <= set(found["seal_textures"].after)
    assert {task.parameters["destination"] for task in workers} == {"/d"}
    assert found["seal_textures"].parameters["destination"] == "/d"


@pytest.mark.parametrize("graph", GRAPHS)
def test_feature_workers_share_the_work_and_their_parts_are_joined(compiled, spread, graph):
    found = plan(spread[graph], feature_workers=["0/3", "1/3", "2/3"])
    workers = [found[f"extract_features-{number}"] for number in range(3)]
    assert [task.parameters["worker"] for task in workers] == ["0/3", "1/3", "2/3"]
    joined = found["seal_features"]
    assert {task.name for task in workers} <= set(joined.after)
    assert {task.parameters["feature_parts"] for task in (*workers, joined)} == {"/f"}
    for name in ("splits", "references", "mirrored"):  # by which the parts are found
        assert {task.parameters[name] for task in workers} == {joined.parameters[name]}
    assert joined.inputs == workers[0].inputs
    assert found["evaluate"].inputs["features"].task == "seal_features"
    alone = plan(compiled[graph])
    assert "seal_features" not in alone
    assert alone["extract_features"].parameters["feature_parts"] == "none"
    names = ["extract_features-0", "extract_features-1", "seal_features"]
    place = list(alone).index("extract_features")
    assert list(plan(spread[graph])) == [*list(alone)[:place], *names, *list(alone)[place + 1 :]]


def test_each_graph_passes_the_artifacts_it_has(compiled):
    made = {"dataset", "textures", "generator", "pit"}
    assert set(plan(compiled["full"])["train_san"].inputs) == made
    assert set(plan(compiled["full"])["seal_textures"].inputs) == {"dataset", "generator"}
    assert set(plan(compiled["ready"])["train_san"].inputs) == made - {"pit"}
    assert set(plan(compiled["ready"])["seal_textures"].inputs) == {"dataset", "generator"}
    assert plan(compiled["ready"])["take_generator"].parameters["source"] == "shipped"
    assert set(plan(compiled["textures"])["train_san"].inputs) == {"dataset", "textures"}
    assert set(plan(compiled["textures"])["seal_textures"].inputs) == {"dataset"}
    assert plan(compiled["textures"])["seal_textures"].parameters["source"] == "/t"
    assert set(plan(compiled["pretrained"])["train_san"].inputs) == {"dataset", "generator"}
    assert plan(compiled["pretrained"])["take_generator"].parameters["source"] == "shipped"
    assert set(plan(compiled["baseline"])["train_san"].inputs) == {"dataset"}


@pytest.mark.parametrize("graph", GRAPHS)
def test_arithmetic_of_training_can_be_pinned(compiled, graph):
    pinned = {"precision": "bfloat16", "compiled": True}
    tasks = plan(compiled[graph], **pinned)
    for name in {"train_san", "train_san_pg"} & set(tasks):
        words = step_parser(STEPS[name]).parse_args(tasks[name].words[4:])
        assert (words.precision, words.compiled) == ("bfloat16", True)
    # as textures are found again by it, theirs is the same whatever trains
    for name in {"generate_textures-0"} & set(tasks):
        assert tasks[name].parameters["precision"] == "float32"


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_parameter_is_described_and_used(compiled, spread, graph):
    for document in (compiled[graph], spread[graph]):
        declared = pipeline_parameters(document)
        text = json.dumps(document["root"]["dag"])
        for name, spec in declared.items():
            assert spec["description"] == PARAMETER_MEANINGS[name]
            assert f'{{"componentInputParameter": "{name}"}}' in text
        assert list(declared) == sorted(declared)


def test_no_parameter_is_described_in_vain(spread):
    assert set(PARAMETER_MEANINGS) == {
        name for one in spread.values() for name in pipeline_parameters(one)
    }


@pytest.mark.parametrize("graph", GRAPHS)
def test_graph_repeats_no_default_of_a_step_differently(compiled, graph):
    document = compiled[graph]
    declared = pipeline_parameters(document)
    for spec in document["root"]["dag"]["tasks"].values():
        component = document["components"][spec["componentRef"]["name"]]
        own = component.get("inputDefinitions", {}).get("parameters", {})
        for name, source in spec.get("inputs", {}).get("parameters", {}).items():
            if "runtimeValue" in source:
                assert source["runtimeValue"]["constant"] == own[name]["defaultValue"], name
                continue
            outer = source["componentInputParameter"]
            is_another = (graph, outer) in OTHER_DEFAULTS
            if "defaultValue" in declared[outer] and "defaultValue" in own[name]:
                same = declared[outer]["defaultValue"] == own[name]["defaultValue"]
                assert same is not is_another, outer


@pytest.mark.parametrize("graph", GRAPHS)
def test_defaults_of_a_graph_are_no_mistake(compiled, graph):
    declared = pipeline_parameters(compiled[graph])
    check_beforehand(
        {name: place for name, place in REQUIRED.items() if name in declared}, compiled[graph]
    )


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].graph == "full"])
def test_a_generator_changes_no_recipe_of_a_preset(compiled, name):
    arguments = pipeline_arguments(PRESETS[name], compiled["ready"], [], folder=Path("runs"))
    assert arguments["san_overrides"] == ""


@pytest.mark.parametrize("graph", GRAPHS)
def test_steps_run_in_the_image_of_their_target(tmp_path, graph):
    document = GRAPHS[graph].compile(tmp_path / "p.yaml", image="registry/san-{target}:abc")
    for executor in document["deploymentSpec"]["executors"].values():
        container = executor["container"]
        target = "gpu" if container["command"][3] in GPU_STEPS else "cpu"
        assert container["image"] == f"registry/san-{target}:abc"


@pytest.mark.parametrize("name", PRESETS)
def test_preset_fits_its_graph(compiled, name):
    preset = PRESETS[name]
    declared = pipeline_parameters(compiled[preset.graph])
    assert set(preset.values) <= set(declared)
    for recipe in ("san_recipe", "pg_recipe"):
        assert (recipe in preset.values) is (recipe in declared)
        if recipe in declared:
            assert preset.values[recipe] in RECIPES
    for task in plan(compiled[preset.graph], **preset.values).values():
        step_parser(STEPS[task.step]).parse_args(task.words[4:])


def test_defaults_name_recipes_that_exist(compiled):
    for document in compiled.values():
        for name, spec in pipeline_parameters(document).items():
            if name.endswith("_recipe"):
                assert spec["defaultValue"] in RECIPES


def test_compile_writes_to_the_given_path(tmp_path):
    output = tmp_path / "deep" / "p.yaml"
    words = ["--graph", "baseline", "--image", "san:1", "--output", str(output)]
    assert main(["compile", *words]) == 0
    definition, _ = yaml.safe_load_all(output.read_text())  # and what the pods ask for
    assert definition["pipelineInfo"]["name"] == "san-baseline"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--graph", "full"], "--graph has no effect with --components, which writes every step"),
        (["--output", "p.yaml"], "--output has no effect with --components"),
        (["--memory", "8Gi"], "--memory has no effect with --components; your pipeline sets it"),
        (["--retries", "5"], "--retries has no effect with --components"),
        (["--node-selector", "a=b"], "--node-selector has no effect with --components"),
    ],
)
def test_settings_without_effect_on_components_are_refused(tmp_path, capsys, words, message):
    folder = tmp_path / "components"
    with pytest.raises(SystemExit) as stop:
        main(["compile", "--image", "san:1", "--components", str(folder), *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not folder.exists()


def test_processes_of_components_are_asked_for_by_gpus(tmp_path):
    words = ["--image", "san:1", "--components", str(tmp_path), "--gpus", "train_san=2"]
    assert main(["compile", *words]) == 0
    assert "torch.distributed.run" in (tmp_path / "train_san" / "component.yaml").read_text()


@pytest.fixture
def ran(monkeypatch) -> list[dict[str, Any]]:
    """What `run` hands to the local runner."""
    calls: list[dict[str, Any]] = []

    def run(document: dict[str, Any], arguments: dict[str, Any], **options: Any) -> None:
        name = document["pipelineInfo"]["name"]
        calls.append({"pipeline": name, "arguments": arguments, **options})

    monkeypatch.setattr(local, "run_pipeline", run)
    return calls


@pytest.mark.parametrize("command", ["run", "submit"])
def test_help_describes_every_parameter(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    words = " ".join(capsys.readouterr().out.split())
    for name, meaning in PARAMETER_MEANINGS.items():
        assert f" {name} {meaning}" in words


def test_run_fills_in_the_preset_and_the_folders_that_runs_share(ran, tmp_path):
    assert main(["run", "--preset", "demo", "--runs", str(tmp_path)]) == 0
    (call,) = ran
    assert call["pipeline"] == "san-full"
    assert call["folder"] == tmp_path / "demo"
    assert (call["start"], call["only"], call["verbose"]) == (None, None, False)
    assert call["arguments"] == {
        "destination": str(tmp_path / ".store" / "textures"),
        "checkpoint": str(tmp_path / ".store" / "checkpoints"),
        "dataset": "synthetic",
        "difficulty": "normal",
        "identities": 192,
        "image_height": 128,
        "pit_textures": 400,
        "pit_meshes": 6,
        "dense": True,
        "pg_recipe": "demo-pg",
        "pg_overrides": "texture_from=copy w_dense=1 epochs=14",
        "san_recipe": "demo",
        "workers": ["0/2", "1/2"],
        "references": True,
        "san_overrides": "",
        "seed": 0,
    }
    assert not (tmp_path / "demo").exists()  # whoever has the lock keeps the record there
    with call["record"]([]):
        document = yaml.safe_load((tmp_path / "demo" / "pipeline.yaml").read_text())
    assert document["pipelineInfo"]["name"] == "san-full"


def test_feature_workers_are_a_number_or_named_and_keep_their_parts_in_the_store(ran, tmp_path):
    for word, count in (("2", 2), ('["1/3", "0/3", "2/3"]', 3), ("1", 1)):
        words = ["--runs", str(tmp_path), "--param", f"feature_workers={word}"]
        assert main(["run", "--preset", "demo-baseline", *words]) == 0
        given = ran[-1]["arguments"]
        assert len(given.get("feature_workers", ["0/1"])) == count
        if count > 1:
            assert given["feature_parts"] == str(tmp_path / ".store" / "features")


def test_run_keeps_how_many_workers_embed(ran, tmp_path):
    words = ["--runs", str(tmp_path), "--param", "feature_workers=2"]
    assert main(["run", "--preset", "demo-baseline", *words]) == 0
    with ran[-1]["record"]([]):
        assert main(["run", "--runs", str(tmp_path), "--name", "demo-baseline"]) == 0
    assert ran[-1]["arguments"]["feature_workers"] == ["0/2", "1/2"]


def test_parameters_go_before_the_preset(ran, tmp_path):
    words = ["--param", "seed=7", "--param", "san_overrides=lr=1e-4 epochs=3"]
    words += ["--param", "checkpoint=none", "--name", "other", "--only", "train_san"]
    assert main(["run", "--preset", "demo", "--runs", str(tmp_path), *words]) == 0
    (call,) = ran
    assert call["arguments"]["seed"] == 7
    assert call["arguments"]["san_overrides"] == "lr=1e-4 epochs=3"
    assert call["arguments"]["checkpoint"] == "none"
    assert call["folder"] == tmp_path / "other"
    assert call["only"] == "train_san"


def test_empty_places_are_folders_that_all_runs_share(ran, tmp_path):
    words = ["--param", "destination=", "--param", "checkpoint="]
    assert main(["run", "--preset", "demo", "--runs", str(tmp_path), *words]) == 0
    (call,) = ran
    assert call["arguments"]["destination"] == str(tmp_path / ".store" / "textures")
    assert call["arguments"]["checkpoint"] == str(tmp_path / ".store" / "checkpoints")


def test_credentials_in_a_place_are_refused_and_not_shown(ran, capsys, tmp_path):
    words = ["--param", "destination=s3://KEY:hunter2@bucket/x", "--runs", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["run", "--preset", "demo", *words])
    said = capsys.readouterr().err
    assert "destination: a URI must not contain a user, key or host before its bucket" in said
    assert "hunter2" not in said
    assert ran == []


def test_a_generator_that_is_there_takes_the_place_of_training_one(ran, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    for given, meant in (("shipped", "shipped"), ("mine", str(tmp_path / "mine"))):
        words = ["--preset", "demo", "--runs", str(tmp_path), "--param", f"generator={given}"]
        assert main(["run", *words]) == 0
        assert ran[-1]["pipeline"] == "san-ready"
        assert ran[-1]["arguments"]["generator"] == meant
        assert "pit_textures" not in ran[-1]["arguments"]


@pytest.mark.parametrize(
    ("preset", "graph", "recipe"),
    [("small", "pretrained", "small-baseline"), ("small-san", "ready", "small")],
)
def test_a_first_model_of_ones_own_people_starts_from_the_shipped_generator(
    ran, tmp_path, preset, graph, recipe
):
    (tmp_path / "people").mkdir()
    data = ["--param", "dataset=folders", "--param", f"source={tmp_path / 'people'}"]
    assert main(["run", "--preset", preset, "--runs", str(tmp_path), *data]) == 0
    (call,) = ran
    assert call["pipeline"] == f"san-{graph}"
    given = call["arguments"]
    assert given["san_overrides"] == ""
    assert (given["generator"], given["san_recipe"]) == ("shipped", recipe)
    assert ("workers" in given) is (graph == "ready")


def test_graph_takes_from_the_preset_what_it_knows(ran, tmp_path):
    words = ["--graph", "baseline", "--from", "evaluate", "--verbose", "--runs", str(tmp_path)]
    recipe = ["--param", "san_recipe=demo-baseline"]
    assert main(["run", "--preset", "demo", *recipe, *words]) == 0
    (call,) = ran
    assert call["pipeline"] == "san-baseline"
    assert "pg_recipe" not in call["arguments"]
    assert "destination" not in call["arguments"]
    assert (call["start"], call["verbose"]) == ("evaluate", True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--preset", "dem"], "no preset 'dem'; did you mean 'demo'. there are demo, demo-base"),
        (["--preset", "demo", "--param", "sed=1"], "no parameter 'sed'; did you mean 'seed'"),
        (["--preset", "demo", "--param", "seed=x"], "parameter seed: 'x' is not a whole number"),
        (["--preset", "demo", "--param", "seed=-1"], "seed is -1: it must be 0 to"),
        (["--preset", "demo", "--param", f"seed={'[' * 5000}"], r"seed: '\[{60}\.\.\.' is not a"),
        (
            ["--preset", "demo", "--param", 'workers=["0/2\\n"]'],
            "error: workers are 0/2 ; 1 of them must be 0/1\n",
        ),
        (["--preset", "demo", "--param", "seed"], "'seed' is not of the form name=value"),
        (["--preset", "demo", "--name", "a\nb"], r"--name 'a\\nb' has characters that no terminal"),
        (["--preset", "demo", "--name", "a/b"], "--name 'a/b' is not the name of a folder in"),
        (["--preset", "demo", "--name", ""], "--name '' is not the name of a folder in"),
        (["--preset", "demo", "--name", ".."], "--name '..' is not the name of a folder in"),
        (["--preset", "demo", "--from", "bake"], "no step 'bake'; there are make_pit"),
        (
            ["--preset", "demo", "--graph", "full", "--param", "generator=shipped"],
            "no parameter 'generator'",
        ),
        (
            ["--preset", "demo", "--param", "generator=shipped", "--param", "pit_textures=5"],
            "no parameter 'pit_textures'",
        ),
        (["--preset", "demo", "--graph", "textures"], "--param texture_source=VALUE is needed"),
        (["--preset", "demo", "--from", "evaluate", "--only", "evaluate"], "not allowed with"),
        ([], "give --preset, or the --name of an earlier run, whose parameters are"),
        (["--name", "no"], "--preset is needed, as .*/no has no parameters of an earlier run"),
        (["--preset", "demo", "--of", "no"], "--of and --preset both give parameters"),
        (["--preset", "demo", "--name", ".store"], "--name '.store' is not the name of a folder"),
    ],
)
def test_wrong_usage_is_2(monkeypatch, tmp_path, capsys, words, message):
    monkeypatch.setattr(
        "components.runner.local._Run.run_stale", lambda *_, **__: None
    )  # should it get there
    with pytest.raises(SystemExit) as stop:
        main(["run", "--runs", str(tmp_path), *words])
    assert stop.value.code == 2
    assert re.search(message, capsys.readouterr().err)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (RunError("train_san failed"), 1, "pipeline.py: train_san failed"),
        (PermissionError(13, "Permission denied", "/x"), 1, "Permission denied"),
        (KeyboardInterrupt(), 130, "stopped; the same command continues from here"),
        (Terminated(), 143, "stopped; the same command continues from here"),
    ],
)
def test_exit_status_shows_how_a_run_ended(monkeypatch, tmp_path, capsys, error, status, line):
    def run(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(local, "run_pipeline", run)
    assert main(["run", "--preset", "demo-baseline", "--runs", str(tmp_path)]) == status
    assert line in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("source=/nowhere", "source /nowhere: there is no such folder or file"),
        ("destination=/dev/null/x", "destination /dev/null/x: /dev/null is no folder"),
        (
            "pg_overrides=pretrained=/no.pth",
            "pg_overrides pretrained /no.pth: there is no such folder or file",
        ),
        ("generator=/nowhere", "generator /nowhere: there is no such folder or file"),
    ],
)
def test_places_are_opened_before_the_first_step(ran, tmp_path, capsys, word, line):
    words = ["run", "--preset", "market1501", "--runs", str(tmp_path), "--param", word]
    (tmp_path / "here").mkdir()
    if not word.startswith("source"):
        words += ["--param", f"source={tmp_path / 'here'}"]
    assert main(words) == 1
    assert capsys.readouterr().err == f"pipeline.py: {line}\n"
    assert ran == []


def test_a_step_alone_does_not_ask_for_what_it_does_not_read(ran, tmp_path):
    words = ["--preset", "market1501", "--param", "source=/nowhere", "--only", "evaluate"]
    assert main(["run", "--runs", str(tmp_path), *words]) == 0
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--graph", "textures", "--param", "target=cuhk03"],
            "--param texture_source=VALUE is needed; dataset market1501 needs --param source=PLACE,"
            " where it is; target cuhk03 needs --param target_source=PLACE, where it is",
        ),
        ([], "error: dataset market1501 needs --param source=PLACE, where it is"),
    ],
)
@pytest.mark.parametrize(
    "command",
    [["run"], ["submit", "--host", "http://localhost:1", "--image", CLUSTER_IMAGE]],
    ids=["run", "submit"],
)
def test_all_missing_parts_are_reported_at_once(
    tmp_path, capsys, monkeypatch, words, message, command
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main([*command, "--preset", "market1501", *words])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_failing_run_ends_with_one_clear_message(tmp_path):
    words = ["run", "--preset", "market1501-baseline", "--runs", str(tmp_path)]
    (tmp_path / "empty").mkdir()
    words += ["--param", f"source={tmp_path / 'empty'}"]
    done = subprocess.run(
        [sys.executable, "pipeline.py", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    why, log, _ = done.stderr.splitlines()
    assert why.startswith(f"pipeline.py: prepare_reid failed with exit code 1: {tmp_path}/empty is")
    assert log == f"  log: {tmp_path / 'market1501-baseline' / 'prepare_reid' / 'log.txt'}"
