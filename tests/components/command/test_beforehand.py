"""Mistakes that are found before the first step, by the names of graphs and of single steps."""

import re
from typing import get_args

import pytest

from components.__main__ import STEPS
from components.command import beforehand
from components.command.beforehand import PRECISIONS, Processes, check_parameters
from components.command.step import step_parameters
from components.storage.texture_store import VERIFY_LEVELS
from san_core.evaluation.protocols.scoring import PROTOCOL_NAMES
from san_core.model import weights
from san_core.model.saved import read_description
from san_core.shipped.generator import SHIPPED_FOLDER
from san_core.synthesis.difficulty import DIFFICULTIES
from san_core.training.precision import Precision

DATA = {"dataset": "synthetic", "source": "", "target": "", "target_source": "", "identities": 300}

START = {"generator": "shipped", "san_recipe": "small-baseline", "san_overrides": ""}
READY_MADE = {"texture_source": "s3://b/t", "destination": ""}
SHIPPED = {**START, "san_recipe": "demo", "destination": ""}


@pytest.mark.parametrize("step", STEPS)
def test_defaults_of_every_step_are_no_mistake(step):
    declared = [p for p in step_parameters(STEPS[step]) if p.artifact is None]
    check_parameters({p.name: p.default for p in declared if not p.is_required})


@pytest.mark.parametrize(
    "workers", [["0/1"], ["0/2", "1/2"], ["1/2", "0/2"], [f"{i}/12" for i in range(12)]]
)
def test_workers_that_make_every_shard_once_are_taken(workers):
    check_parameters({"workers": workers})
    check_parameters({"feature_workers": workers})


def test_several_workers_whose_features_are_stored_nowhere_are_refused():
    values = {"feature_workers": ["0/2", "1/2"]}
    check_parameters({**values, "feature_parts": ""})
    check_parameters({**values, "feature_parts": "/parts"})
    with pytest.raises(ValueError, match="feature_parts=none stores no features of several worke"):
        check_parameters({**values, "feature_parts": "none"})


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ([], "workers are none; 1 of them must be 0/1"),
        (["0/2"], "workers are 0/2; 1 of them must be 0/1"),
        (["0/2", "0/2"], "workers are 0/2, 0/2; 2 of them must be 0/2, 1/2"),
        (["1/2", "2/2"], "2 of them must be 0/2, 1/2"),
        (["0/3", "1/3"], "2 of them must be 0/2, 1/2"),
        (["0/2", "1/2", "0/1"], "3 of them must be 0/3, 1/3, ..."),
        (["00/2", "1/2"], "2 of them must be 0/2, 1/2"),
        (["a", "1/2"], "2 of them must be 0/2, 1/2"),
        ([0, 1], "2 of them must be 0/2, 1/2"),
    ],
)
def test_workers_that_leave_shards_out_or_make_them_twice_are_refused(workers, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_parameters({"workers": workers})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"worker": "2/2"}, "worker '2/2' is not i/n with i from 0 to n - 1"),
        ({"verify": "md5"}, "verify 'md5' is none of none, size, sha256"),
        ({"seed": -1}, "seed is -1: it must be 0 to 9223372036854775807"),
        ({"protocol": "best"}, "no protocol 'best'; there are auto, market1501"),
        ({"protocol": "auto,best"}, "no protocol 'best'"),
        ({"protocol": ""}, "no protocol is named"),
        ({"protocol": "sysu-mm01,sysu-mm01"}, "protocol sysu-mm01 is given twice"),
        ({"world": "moon"}, "no world 'moon'; there are: studio, street"),
        ({"difficulty": "nasty"}, "no difficulty 'nasty'; there are: easy, normal, hard"),
        ({"recipe": "nope", "overrides": ""}, "no recipe 'nope'"),
        ({"pg_recipe": "pit", "pg_overrides": "lrr=1"}, "no recipe field 'lrr'"),
        (
            {**SHIPPED, "san_overrides": "pit_every=2"},
            "mixes in PIT batches (pit_every=2), and a graph that trains no generator makes no PIT",
        ),
        (
            {**SHIPPED, "san_recipe": "cuhk03"},
            "learns textures of 256x256, and the shipped generator makes 128x128; set for",
        ),
        (
            {**START, "san_recipe": "small"},
            "recipe 'small' needs textures (w_rec=5, w_tr=0.1), and this graph has none",
        ),
        (
            {**START, "san_recipe": "demo-baseline"},
            "takes nothing from a generator (init=none, w_distill=0), and this graph makes no",
        ),
        (
            {**START, "san_overrides": "arch=resnet18"},
            "(init=encoder) with arch=resnet18, and the shipped generator has arch=resnet10_q",
        ),
        (
            {**SHIPPED, "san_overrides": "arch=resnet18 init=generator"},
            "(init=generator) with arch=resnet18, last_stride=1, ",
        ),
        (
            {**READY_MADE, "san_recipe": "synthetic", "san_overrides": ""},
            "the recipe starts from SAN-PG (init=encoder), and this graph has no generator",
        ),
        (
            {"san_recipe": "demo-baseline", "san_overrides": "w_distill=2"},
            "the recipe distils SAN-PG's features (w_distill=2), and this graph has no generator",
        ),
        ({**DATA, "dataset": "mars"}, "no data set 'mars'"),
        ({**DATA, "target": "partial"}, "target partial needs --param target_source=PLACE"),
        (
            {**DATA, "dataset": "msmt17:all", "source": "/m", **SHIPPED},
            "dataset msmt17:all uses all its people for training, so nobody is left to test on",
        ),
        ({**DATA, "identities": 2}, "identities is 2: at least 6"),
        (
            {**DATA, "dataset": "msmt17", "source": "/m", "target": "synthetic", "identities": 2},
            "identities is 2: at least 6",
        ),
    ],
)
def test_value_that_no_step_takes_is_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_parameters(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipe": "demo", "overrides": "image_height=60"}, "images of 60x32 do not divide by 8"),
        ({"pg_recipe": "pit", "pg_overrides": "texture_size=200"}, "texture_size 200 cannot be"),
        (
            {"pg_recipe": "pit-copy", "pg_overrides": "", "dense": False},
            "recipe 'pit-copy' learns from dense maps (w_dense=1), and this run makes none",
        ),
        ({"fuse": "pid"}, "fuse 'pid' is not one of none, person"),
        (
            {"pg_recipe": "pit", "pg_overrides": "", "fuse": "person"},
            "texture_from=copy predict these; recipe 'pit' has texture_from=regress",
        ),
        (
            {"precision": "half"},
            "precision 'half' is not one of auto, float32, tf32, bfloat16, float16",
        ),
        ({"mirrored": "yes"}, "mirrored 'yes' is not one of auto, true, false"),
        (
            {"san_recipe": "demo", "san_overrides": ""},
            "recipe 'demo' needs textures (w_rec=5, w_tr=0), and this graph has none",
        ),
    ],
)
def test_training_that_cannot_work_is_refused(values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_parameters(values)


def test_processes_are_those_of_the_step_that_trains_the_recipe():
    values = {
        "pg_recipe": "pit",
        "pg_overrides": "batch_size=60",
        "san_recipe": "cuhk03",
        "san_overrides": "identities_per_batch=16",
        "destination": "",
    }
    check_parameters(values, {"train_san_pg": Processes(3), "train_san": Processes(2, 2)})
    with pytest.raises(ValueError, match="--gpus train_san=3: a batch of 16 identities"):
        check_parameters(values, {"train_san_pg": Processes(3), "train_san": Processes(3)})
    with pytest.raises(ValueError, match="--gpus 3: a batch of 64 images"):
        check_parameters({"recipe": "pit", "overrides": ""}, {"": Processes(3)})
    asked = "--nodes train_san=3 with --gpus train_san=2: a batch of 16 identities"
    with pytest.raises(ValueError, match=asked):
        check_parameters(values, {"train_san": Processes(2, nodes=3)})


def test_several_processes_do_not_compile():
    values = {"san_recipe": "cuhk03-baseline", "san_overrides": "", "compiled": True}
    check_parameters(values, {"train_san": Processes()})
    check_parameters({**values, "compiled": False}, {"train_san": Processes(4)})
    with pytest.raises(ValueError, match="--gpus train_san=4: compiled=true trains in one process"):
        check_parameters(values, {"train_san": Processes(4)})


def test_precisions_are_those_of_training():
    assert get_args(Precision) == PRECISIONS


def test_textures_that_a_generator_makes_are_averaged_to_the_recipes_size():
    check_parameters(SHIPPED)
    small = "texture_size=64 decoder_plan=light"
    check_parameters({**SHIPPED, "san_recipe": "cuhk03", "san_overrides": small})
    check_parameters({**SHIPPED, "san_recipe": "cuhk03-baseline"})
    check_parameters({**SHIPPED, "generator": "/somebodys", "san_recipe": "cuhk03"})


def test_a_start_needs_a_generator_of_its_network_alone():
    check_parameters(START)
    check_parameters({**START, "san_recipe": "demo-baseline", "san_overrides": "w_distill=1"})
    check_parameters({**START, "generator": "/somebodys", "san_overrides": "arch=resnet18"})


def test_a_start_with_the_decoder_compares_all_that_train_san_compares():
    assert beforehand._FIELDS_OF_START["generator"] == weights._ARCHITECTURE_FIELDS
    values = {**SHIPPED, "san_recipe": "synthetic", "san_overrides": "init=generator"}
    with pytest.raises(ValueError, match=re.escape("with last_stride=1, decoder_width=0.5, ")):
        check_parameters(values)
    shipped = read_description(SHIPPED_FOLDER).recipe
    fields = [f"{name}={getattr(shipped, name)}" for name in weights._ARCHITECTURE_FIELDS]
    fitting = f"init=generator {' '.join(fields).lower()}"
    check_parameters({**values, "san_overrides": fitting})
    for name, other in (("skips=false", "skips=true"), ("decoder_width=1.0", "decoder_width=0.5")):
        with pytest.raises(ValueError, match=f"with {other}, and the shipped generator has {name}"):
            check_parameters({**values, "san_overrides": fitting.replace(name, other)})


@pytest.mark.parametrize(
    ("recipe", "overrides"),
    [
        ("cuhk03", ""),
        ("cuhk03", "init=encoder"),
        ("cuhk03", "init=generator train_decoder=false"),
        ("cuhk03-baseline", "init=encoder"),
        ("synthetic", "init=generator"),
        ("small", "arch=resnet18"),
    ],
)
def test_settings_that_a_refusal_names_are_not_refused_in_turn(recipe, overrides):
    values = {**SHIPPED, "san_recipe": recipe, "san_overrides": overrides}
    with pytest.raises(ValueError, match="set ") as refusal:
        check_parameters(values)
    told = str(refusal.value).rpartition("set ")[2]
    named = re.findall(r"(\w+)=(\w+)", told.replace('san_overrides="', ""))
    settings = dict(word.split("=") for word in overrides.split()) | dict(named)
    words = " ".join(f"{name}={value}" for name, value in settings.items())
    check_parameters({**values, "san_overrides": words})


@pytest.mark.parametrize("recipe", ["cuhk03", "cuhk03-baseline", "demo-baseline"])
def test_a_recipe_that_a_graph_without_textures_refuses_has_one_that_it_takes(recipe):
    with pytest.raises(ValueError, match="choose small-baseline, or a -baseline recipe of the gen"):
        check_parameters({**START, "san_recipe": recipe})
    check_parameters({**START, "san_recipe": "small-baseline"})
    check_parameters({**START, "san_recipe": "demo-baseline", "san_overrides": "init=encoder"})
    somebodys = {**START, "generator": "/somebodys"}
    with pytest.raises(ValueError, match=r"; .*choose a -baseline recipe of the generator's arch"):
        check_parameters({**somebodys, "san_recipe": recipe})
    fitting = {"san_recipe": "cuhk03-baseline", "san_overrides": "init=encoder"}
    check_parameters({**somebodys, **fitting})
    with pytest.raises(ValueError, match="choose a recipe that ends in -baseline, or use another"):
        check_parameters({"san_recipe": "cuhk03", "san_overrides": ""})


def test_people_are_not_counted_where_none_are_rendered():
    check_parameters({**DATA, "dataset": "msmt17", "source": "/m", "identities": 0})
    check_parameters({**DATA, "identities": 6})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("verify", VERIFY_LEVELS),
        ("difficulty", DIFFICULTIES),
        (
            "protocol",
            [
                *PROTOCOL_NAMES,
                "auto",
                "auto,camera-free",
                "auto market1501",
                "multi-query:sysu-mm01",
            ],
        ),
        ("worker", ["0/1", "1/2", "/3"]),
    ],
)
def test_value_that_a_step_takes_is_taken(name, values):
    for value in values:
        check_parameters({name: value})
