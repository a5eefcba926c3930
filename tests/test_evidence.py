"""The machinery that measures whether textures help: pairs, intervals, subsets, rows, refusals."""

import dataclasses
import hashlib
import json
import math
import re

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.ranking import rank_distances
from san_core.recipe import recipe_with_overrides
from tests.benchmarks import step_cost
from tests.benchmarks.evidence import arms, choices, data, figures, reproduce, score, table
from tests.benchmarks.evidence.arms import ARMS, Arm, Job
from tests.benchmarks.evidence.code import strip_comments
from tests.benchmarks.evidence.queue import JobQueue
from tests.benchmarks.evidence.rows import (
    ForeignRowsError,
    RowsFile,
    mean_difference,
    paired_differences,
)
from tests.benchmarks.figure import Figure

CODE = "c" * 64
GENERATOR = {
    "cpu_seconds": 100.0,
    "psnr": 16.0,
    "psnr_of_mean": 12.5,
    "recipe": arms.recipe_fields(arms.recipe_of_generator()),
}


def row(arm, seed, score=0.5, **fields):
    epochs = fields.pop("epochs", 30)
    return {
        "arm": arm,
        "difficulty": "hard",
        "budget": figures.EQUAL_EPOCHS,
        "epochs": epochs,
        "seed": seed,
        "split": "test",
        "mAP": score,
        "rank1": score,
        "front_to_back": score,
        "occluded": None,
        "cross_pose": score,
        "cpu_seconds": 50.0,
        "targets": ARMS[arm].targets,
        "generator": None,
        "recipe": arms.recipe_fields(arms.recipe_of_arm(ARMS[arm], epochs)),
        "data": "d" * 64,
        "code": CODE,
        "commit": "0123456",
        "machine": {"cpu": "abacus", "cores": 2, "python": "3.11", "torch": "2"},
        "date": "2020-02-02",
        **fields,
    }


def kept_of(path, *rows):
    kept = RowsFile(path / "rows.json")
    for each in rows:
        kept.add(each)
    return kept


def test_interval_of_paired_differences_is_that_of_the_t_test():
    values = [3.5, 5.6, 5.6, 1.8]
    found = mean_difference(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.mean == pytest.approx((3.5 + 5.6 + 5.6 + 1.8) / 4)
    low, high = found.mean - found.half, found.mean + found.half
    assert (low, high) == pytest.approx((expected.low, expected.high))
    assert found.pairs == 4


def test_single_pair_has_no_interval():
    assert mean_difference([2.0]) == (2.0, None, 1)
    with pytest.raises(ValueError, match="no pair of rows has a seed in common"):
        mean_difference([])


def test_rows_are_paired_by_seed_and_lone_ones_left_out():
    mine = [row("full", 2, 0.60), row("full", 1, 0.50), row("full", 3, 0.9)]
    others = [row("baseline", 1, 0.45), row("baseline", 2, 0.58), row("baseline", 4, 0.1)]
    assert paired_differences(mine, others) == pytest.approx(
        [100 * (0.50 - 0.45), 100 * (0.60 - 0.58)]
    )
    assert paired_differences(mine, others, "occluded") == []


def test_opposite_sides_are_front_and_back_in_either_order():
    query, gallery = np.array([0.0, 350.0, 180.0, 90.0]), np.array([10.0, 190.0, 270.0])
    found = score.opposite_sides(query, gallery)
    assert found.tolist() == [
        [False, True, False],
        [False, True, False],
        [True, False, False],
        [False, False, False],
    ]


def test_matches_outside_of_a_subset_are_left_out_and_strangers_stay():
    distances = np.array([[0.1, 0.2, 0.3, 0.4]], np.float32)
    same = np.array([[True, False, True, True]])
    # left: stranger, right, right (the first of the person's is left out)
    matches = np.array([[False, False, True, True]])
    assert score.mean_ap(distances, same, matches) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert score.mean_ap(distances, same, np.zeros_like(same)) is None


def test_without_a_subset_the_score_is_that_of_the_protocol():
    draw = np.random.default_rng(1)
    query = Labels(draw.integers(1, 6, 20), draw.integers(0, 3, 20))
    gallery = Labels(draw.integers(1, 6, 50), draw.integers(0, 3, 50))
    distances = draw.integers(0, 30, (20, 50)).astype(np.float32)  # with ties
    same = query.pids[:, None] == gallery.pids[None]
    matches = same & (query.camids[:, None] != gallery.camids[None])
    expected = rank_distances([Tile(slice(0, 20), distances)], query=query, gallery=gallery)
    assert score.mean_ap(distances, same, matches) == pytest.approx(expected.mAP)


def test_shuffled_textures_are_always_those_of_one_other_person():
    labels = np.repeat(np.arange(12), 5)
    rows = data.rows_of_other_people(labels)
    assert (labels[rows] != labels).all()
    assert sorted(rows) == list(range(60))
    for person in range(12):
        mine = rows[labels == person]
        assert len(set(labels[mine])) == 1
        assert (mine % 5).tolist() == [0, 1, 2, 3, 4]  # the same shots


def test_left_for_right_mirrors_a_picture():
    picture = np.arange(4 * 4 * 3, dtype=np.float32).reshape(16, 3)
    mirrored = (data.left_right_mirror(4) @ picture).reshape(4, 4, 3)
    assert np.array_equal(mirrored, picture.reshape(4, 4, 3)[:, ::-1])


def test_rows_survive_in_the_file_and_share_their_recipe(tmp_path):
    kept_of(tmp_path, row("full", 1), row("full", 2), row("baseline", 1))
    again = RowsFile(tmp_path / "rows.json")
    assert [each["seed"] for each in again.rows] == [1, 2, 1]
    assert len(again.recipes) == 2
    assert again.recipe(again.rows[0]) == json.loads(json.dumps(row("full", 1)["recipe"]))
    assert len(again.find(arm="full", difficulty="hard")) == 2


def test_what_has_a_row_is_not_run_again(tmp_path):
    kept = kept_of(tmp_path, row("baseline", 1), row("full", 1))
    scale = reproduce.FULL._replace(difficulties=("hard",), seeds=2, epochs=30)
    jobs = list(reproduce.equal_epochs_jobs(scale, ["baseline", "full"]))
    with JobQueue(1, kept, tmp_path, code=CODE, minutes=1) as queue:
        left = queue.missing_jobs(jobs)
    assert [(job.arm, job.seed) for job in left] == [("baseline", 2), ("full", 2)]


def test_nothing_is_started_when_the_time_is_up(tmp_path, capsys):
    kept = kept_of(tmp_path)
    with JobQueue(1, kept, tmp_path, code=CODE, minutes=0) as queue:
        queue.run_jobs([Job("baseline", "hard", figures.EQUAL_EPOCHS, 30, 1)])
    assert capsys.readouterr().out == (
        "the time is up: 1 runs are left, the same command goes on\n"
    )
    assert kept.rows == []


def test_rows_of_other_code_are_refused(tmp_path):
    kept = kept_of(tmp_path, row("full", 1), row("full", 2, code="e" * 64))
    with pytest.raises(
        ForeignRowsError, match=r"full hard equal epochs 2 was measured with code e{12}, today"
    ):
        figures.check_rows(kept, CODE)


def test_rows_of_another_recipe_or_arm_are_refused(tmp_path):
    changed = row("full", 1)
    changed["recipe"] = {**changed["recipe"], "w_rec": 123.0}
    with pytest.raises(ForeignRowsError, match=r"was measured with w_rec 123\.0, today's is"):
        figures.check_rows(kept_of(tmp_path / "a", changed), CODE)
    gone = {**row("full", 1), "arm": "gone"}
    with pytest.raises(ForeignRowsError, match="no arm gone any more; measure anew with --anew"):
        figures.check_rows(kept_of(tmp_path / "b", gone), CODE)
    figures.check_rows(kept_of(tmp_path / "c", row("full", 1)), CODE)


def test_rows_with_textures_of_another_generator_are_refused(tmp_path):
    made_by = {**GENERATOR, "recipe": {**GENERATOR["recipe"], "epochs": 99}}
    kept = kept_of(tmp_path, row("full", 1, generator=GENERATOR), row("rec", 1, generator=made_by))
    with pytest.raises(ForeignRowsError, match=r"rec hard equal epochs 1 .* epochs 99, today's is"):
        figures.check_rows(kept, CODE)


@pytest.mark.parametrize(
    ("name", "value"), [("machine", {"cpu": "slide rule"}), ("data", "e" * 64)]
)
def test_rows_that_cannot_be_compared_are_refused(tmp_path, name, value):
    kept = kept_of(tmp_path, row("full", 1), row("baseline", 1, **{name: value}))
    message = f"full hard equal epochs 1 and baseline hard equal epochs 1 differ in {name}, "
    with pytest.raises(ForeignRowsError, match=message):
        figures.check_rows(kept, CODE)
    elsewhere = kept_of(tmp_path / "other", row("full", 1), row("full", 2, data="e" * 64))
    figures.check_rows(elsewhere, CODE)  # another seed has other data


def test_nothing_is_measured_beside_rows_of_another_machine(tmp_path):
    kept = kept_of(tmp_path, row("full", 1))
    with JobQueue(1, kept, tmp_path, code=CODE, minutes=1) as queue:
        queue.run_jobs([Job("full", "hard", figures.EQUAL_EPOCHS, 30, 1)])  # is there
        with pytest.raises(ForeignRowsError, match=r"machine \{'cpu': 'abacus'.* today's is"):
            queue.run_jobs([Job("full", "hard", figures.EQUAL_EPOCHS, 30, 2)])


def test_figures_of_foreign_rows_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "ROWS", kept_of(tmp_path, row("full", 1)).path)
    with pytest.raises(SystemExit, match="was measured with code cccc"):
        next(figures.figures())


def test_reproduce_refuses_foreign_rows_before_it_starts(tmp_path, monkeypatch, capsys):
    kept = kept_of(tmp_path, row("full", 1))
    monkeypatch.setattr(reproduce, "FULL", reproduce.FULL._replace(results=kept.path))
    assert reproduce.main([]) == 1
    assert "measure anew with --anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--only", "full,none", "--anew"], "no arm 'none'; there are baseline, "),
        (["--jobs", "0"], "--jobs 0: at least one process is needed"),
        (["--choices", "--quick"], "--choices takes neither --quick nor --only"),
        (["--choices", "--only", "rec", "--anew"], "--choices takes neither --quick nor --only"),
    ],
)
def test_reproduce_refuses_mistakes_and_keeps_the_rows(
    tmp_path, monkeypatch, capsys, words, message
):
    kept = kept_of(tmp_path, row("full", 1))
    monkeypatch.setattr(reproduce, "FULL", reproduce.FULL._replace(results=kept.path))
    with pytest.raises(SystemExit) as stop:
        reproduce.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert len(RowsFile(kept.path).rows) == 1


def test_rows_of_some_arms_are_forgotten(tmp_path):
    kept = kept_of(tmp_path, row("full", 1), row("baseline", 1))
    kept.drop({"full"})
    assert [each["arm"] for each in kept.rows] == ["baseline"]
    assert len(RowsFile(kept.path).rows) == 2, "nothing was measured yet"
    kept.add(row("full", 2))
    found = [(each["arm"], each["seed"]) for each in RowsFile(kept.path).rows]
    assert found == [("baseline", 1), ("full", 2)]


def test_rows_that_cannot_be_measured_anew_are_kept(tmp_path, monkeypatch, capsys):
    kept = kept_of(tmp_path, row("full", 1), row("baseline", 1))
    monkeypatch.setattr(reproduce, "FULL", reproduce.FULL._replace(results=kept.path))
    assert reproduce.main(["--only", "full", "--anew"]) == 1  # the other's code is not today's
    assert "baseline hard equal epochs 1 was measured with code" in capsys.readouterr().err
    assert len(RowsFile(kept.path).rows) == 2


def test_code_is_the_same_whatever_is_said_about_it():
    one = '"""Doc."""\nimport a  # why\n\ndef f(x):\n    """Doc\n    more."""\n    return "#"\n'
    other = 'import a\ndef f(x):\n    return "#"\n'
    assert strip_comments(one) == strip_comments(other) != strip_comments(other.replace("#", "x"))


def test_baseline_is_given_the_cpu_time_of_another_arm(tmp_path):
    kept = kept_of(
        tmp_path,
        *(row("baseline", seed, cpu_seconds=40.0) for seed in (1, 2)),
        *(row("light", seed, cpu_seconds=56.0) for seed in (1, 2)),
    )
    scale = reproduce.FULL._replace(difficulties=("hard",), seeds=2, epochs=30)
    jobs = list(reproduce.equal_cpu_jobs(scale, list(ARMS), figures.cpu_ratios(kept)))
    assert {(job.arm, job.budget, job.epochs) for job in jobs} == {
        ("baseline", "CPU time of light", 42)  # 30 * 56 / 40
    }
    assert [job.seed for job in jobs] == [1, 2]


def test_doubling_ends_when_the_baseline_gains_less_than_half_a_point(tmp_path):
    kept = kept_of(
        tmp_path,
        row("baseline", 1, 0.500),
        row("baseline", 1, 0.550, budget=figures.budget_of_doubling(1), epochs=60),
        row("baseline", 1, 0.554, budget=figures.budget_of_doubling(2), epochs=120),
    )
    assert not figures.has_converged(kept, "hard", 1)
    assert figures.has_converged(kept, "hard", 2)


def measured(path):
    return kept_of(
        path,
        *(row("baseline", seed, 0.50) for seed in (1, 2, 3)),
        *(row("full", seed, 0.53 + seed / 100) for seed in (1, 2, 3)),
        *(row("oracle", seed, 0.60) for seed in (1, 2)),
        *(row("light", seed, 0.53) for seed in (1, 2, 3)),
        *(row("rec", seed, 0.70) for seed in (1, 2)),  # fewer seeds: not set beside the others
        *(row("baseline", s, 0.52, budget="CPU time of light", epochs=40) for s in (1, 2, 3)),
    )


def test_figures_are_means_and_paired_gains(tmp_path):
    found = {figure.name: figure.value for figure in figures.figures_of_rows(measured(tmp_path))}
    assert found["evidence.hard.equal_epochs.full.mAP"] == pytest.approx(100 * (0.53 + 0.02))
    assert found["evidence.hard_map_gain"] == pytest.approx((4 + 5 + 6) / 3)
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)  # the standard deviation of 4, 5, 6 is 1
    assert found["evidence.hard_map_gain_low"] == pytest.approx(5 - half)
    assert found["evidence.equal_cpu_map_gain"] == pytest.approx(53 - 52)
    assert found["evidence.hard_share_of_oracle"] == pytest.approx((4 + 5) / (10 + 10))
    assert "evidence.hard.equal_epochs.full.occluded" not in found


def test_table_tells_every_arm_that_was_measured(tmp_path):
    text = table.results_table(measured(tmp_path))
    (full,) = (line for line in text.splitlines() if line.startswith(f"| {ARMS['full'].words} "))
    assert "| 3 | 55.0% | 55.0% | +5.0 ± 2.5 | +5.0 ± 2.5 | – | +5.0 ± 2.5 | 50 s |" in full
    assert (
        f"| `hard`, equal CPU time: {ARMS['light'].words} | 52.0% (50 s) | 53.0% (50 s) | +1.0"
        in text
    )
    assert (
        "+10.0 ± 0.0 with true textures and +4.5 ± 6.4 (45% of that) with those of SAN-PG (2 "
        in text
    )
    verdict = "it is better than a baseline trained for as long. With a SAN-PG at hand, "
    assert f"*{ARMS['light'].words}*: {verdict}*{ARMS['full'].words}* gains most" in text
    assert "of at most that time: +3.0 ± 2.5." in text
    assert ARMS["shuffled"].words not in text


def test_table_tells_what_starts_as_san_pg_and_how_long_it_takes(tmp_path):
    seeds = (1, 2, 3)
    kept = kept_of(
        tmp_path,
        *(row("baseline", seed, 0.50, cpu_seconds=30.0) for seed in seeds),
        *(row("light_pg", seed, 0.61, generator=GENERATOR) for seed in seeds[:2]),
        *(row("baseline_pg", seed, 0.60, cpu_seconds=30.0, generator=GENERATOR) for seed in seeds),
        *(row("baseline", s, 0.52, budget="CPU time of light", epochs=40) for s in (*seeds, 4)),
        *(
            row("baseline", seed, 0.5 + 0.04 * d, epochs=30 * 2**d, cpu_seconds=30.0 * 2**d)
            | {"budget": figures.budget_of_doubling(d)}
            for d in (1, 2, 3)
            for seed in seeds
        ),
    )
    text = table.results_table(kept)
    light = f"| `hard`, equal CPU time: {ARMS['light_pg'].words} "
    assert f"{light}| 52.0% (50 s) | 61.0% (50 s) | +9.0 ± 0.0 |" in text
    # 130 seconds with SAN-PG's 100: 120 are nearer than 240
    assert "takes 130 CPU seconds. Its gain over a baseline from random weights, trained" in text
    assert "trained for 120 CPU seconds, is +2.0 ± 0.0." in text
    assert "to 8 x the epochs, still gains the baseline +4.0 ± 0.0. It has not converged:" in text
    found = {figure.name: figure.value for figure in figures.figures_of_rows(kept)}
    assert found["evidence.equal_cpu_light_pg_map_gain"] == pytest.approx(9)
    assert found["evidence.hard_gain_of_doubling_3"] == pytest.approx(4)


def test_true_textures_that_bring_nothing_are_told(tmp_path):
    kept = kept_of(
        tmp_path,
        *(row("baseline", seed, 0.50) for seed in (1, 2)),
        *(row("full", seed, 0.51) for seed in (1, 2)),
        *(row("oracle", seed, 0.50) for seed in (1, 2)),
    )
    text = table.results_table(kept)
    assert "gains +0.0 ± 0.0 with true textures and +1.0 ± 0.0 with those of SAN-PG" in text
    assert figures.share_of_oracle(kept, "hard") is None


def test_plot_holds_the_hash_of_its_table(tmp_path):
    kept = measured(tmp_path)
    (tmp_path / "plot.png").write_bytes(table.results_plot(kept))
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (1400, 500)
        told = image.text["Description"]
    assert told == hashlib.sha256(table.results_table(kept).encode()).hexdigest()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(monkeypatch, cache):
    """The cache of small sets."""
    for name, value in {"TRAIN_PEOPLE": 8, "VAL_PEOPLE": 3, "TEST_PEOPLE": 4}.items():
        monkeypatch.setattr(data, name, value)
    shape = {**data.SET_SHAPE, "cameras": 2, "shots": 2}
    monkeypatch.setattr(data, "SET_SHAPE", shape)
    pit = dataclasses.replace(data.PIT, identities=6, meshes=3)
    monkeypatch.setattr(data, "PIT", pit)
    monkeypatch.setattr(score, "SPLITS", {"val": (8, 3), "test": (11, 4)})
    monkeypatch.setattr(arms, "GENERATOR_RECIPE", ("demo-pg", "epochs=1 warmup_epochs=0"))
    return cache


@pytest.mark.slow
def test_run_trains_and_judges_on_people_apart(tiny):
    them = data.rendered_set(tiny, "hard", 1)
    query, gallery = score.query_and_gallery_rows(them, "test")
    assert len(query) == 4 * 2
    assert len(gallery) == 4 * 2
    assert not set(them.identity[query]) & set(them.identity[them.train_rows])
    job = Job("full", "hard", figures.EQUAL_EPOCHS, 3, 1)
    made, again = (arms.run_job(job, ARMS["full"], tiny, code=CODE, commit="0") for _ in "12")
    assert 0 < made["mAP"] <= 1
    assert made["cpu_seconds"] > 0
    assert made["generator"]["psnr"] > 0
    assert made["data"] == them.fingerprint
    took = {"cpu_seconds": 0, "texture_cpu_seconds": 0}
    assert {**made, **took} == {**again, **took}


def test_true_textures_are_those_of_the_person_in_the_image(tiny):
    them = data.rendered_set(tiny, "hard", 1)
    settings = arms.recipe_of_arm(ARMS["oracle"], 3)
    made = data.training_data(them, "true", settings, tiny)
    asked = data.set_spec("hard", 1)
    for row, person in enumerate(them.identity[them.train_rows]):
        own = data.reid_texture(asked, person)
        expected = data.area_average(own, settings.texture_size)
        found = made.textures[made.texture_index[row]].astype(int)
        assert np.abs(found - expected).max() <= 1  # rounded twice


def test_targets_are_of_the_recipes_size(tiny):
    them = data.rendered_set(tiny, "hard", 1)
    made_by = data.trained_generator(tiny, arms.recipe_of_generator())
    settings = arms.recipe_of_arm(Arm("", "synthetic"), 3)
    for targets in data.TARGETS[1:]:
        made = data.training_data(them, targets, settings, made_by.path)
        assert made.textures.shape[1:] == (settings.texture_size, settings.texture_size, 3)
        assert len(made.texture_index) == len(them.train_rows) == 8 * 2 * 2
    with pytest.raises(ValueError, match="no targets 'none of these'; there are none, pseudo"):
        data.training_data(them, "none of these", settings, made_by.path)


def test_choices_are_told_beside_the_baseline_of_their_seeds(tmp_path):
    kept = kept_of(
        tmp_path, row("baseline", 1, 0.40), row("baseline", 2, 0.50), row("rec", 2, 0.56)
    )
    variants = choices.VARIANTS
    assert choices.choices_table(kept).splitlines()[2:] == [
        f"| {variants['baseline'].words} | 2 | 45.0% | – |",
        f"| {variants['rec'].words} | 1 | 56.0% | +6.0 |",
    ]


def test_choices_are_made_by_other_people_than_those_reported_on():
    jobs = list(choices.variant_jobs())
    assert {job.arm for job in jobs} == set(choices.VARIANTS)
    assert {job.split for job in jobs} == {"val"}
    assert {job.split for job in reproduce.expected_jobs(reproduce.FULL, list(ARMS))} == {"test"}
    people = [set(range(first, first + count)) for first, count in score.SPLITS.values()]
    people.append(set(range(data.TRAIN_PEOPLE)))
    assert sum(map(len, people)) == len(set.union(*people))


def test_recorded_choices_are_those_of_their_table():
    recorded = choices.choices_table(RowsFile(choices.CHOICES_ROWS))
    assert choices.CHOICES_TABLE.read_text("utf-8") == recorded + "\n"


def test_recorded_table_and_plot_are_those_of_the_recorded_rows():
    kept = RowsFile(figures.ROWS)
    assert table.TABLE_FILE.read_text("utf-8") == table.results_table(kept) + "\n"
    with Image.open(table.PLOT_FILE) as image:
        assert image.text["Description"] == table.table_hash(kept), "make bench GROUP=evidence"
    recorded = json.loads((figures.RESULTS / "evidence.json").read_bytes())["figures"]
    expected = {figure.name: figure for figure in figures.figures_of_rows(kept)}
    assert recorded.keys() == expected.keys(), "make bench GROUP=evidence"
    for name, figure in expected.items():
        assert recorded[name]["value"] == pytest.approx(figure.value), "make bench GROUP=evidence"
        assert recorded[name]["unit"] == figure.unit


@pytest.mark.parametrize(
    ("file", "begin"),
    [("README.md", "## Does texture supervision help?"), ("tests/README.md", "What this shows:")],
)
def test_readme_reads_out_of_the_table_what_stands_there(file, begin):
    text = (arms.ROOT / file).read_text("utf-8")
    read = text.partition(begin)[2].partition("\n## ")[0].partition("\n### ")[0]
    quoted = re.findall(r"[+-]\d+\.\d ± \d+\.\d", read)
    assert quoted
    ratios = figures.cpu_ratios(RowsFile(figures.ROWS))
    for arm in ("full", "light"):
        assert f"{ratios['hard', arm]:.1f} " in read
    assert set(quoted) <= set(
        re.findall(r"[+-]\d+\.\d ± \d+\.\d", table.TABLE_FILE.read_text("utf-8"))
    )


def test_what_a_step_costs_is_told_beside_the_baseline(monkeypatch):
    settled = {name: step_cost.short_recipe(name) for name in ("first_pg", "full_pg")}
    assert (settled["first_pg"].texture_epochs, settled["first_pg"].epochs) == (1, 4)
    monkeypatch.setattr(step_cost, "MEASURED", ("every_pg", "distilled"))
    monkeypatch.setattr(step_cost, "short_training", lambda settings: settings)
    monkeypatch.setattr(step_cost, "median_cpu_seconds", lambda *_, **__: [2.0, 3.0, 2.5])
    assert list(step_cost.figures()) == [
        Figure("evidence.step_cost_every_pg", 3 / 2, "ratio"),
        Figure("evidence.step_cost_distilled", 2.5 / 2, "ratio"),
    ]


@pytest.mark.parametrize("name", arms.CHEAP_ARMS)
def test_a_cheap_form_trains_on_noise(name):
    words = "epochs=1 texture_epochs=0 warmup_epochs=0 decoder_width=0.25"
    settings = recipe_with_overrides(step_cost.short_recipe(name), words)
    (report,) = step_cost.short_training(settings, batches=1)()
    assert list(report.terms) == list(settings.active_losses)


@pytest.mark.slow
def test_an_arm_that_distils_is_trained_and_judged(tiny):
    job = Job("distilled", "hard", figures.EQUAL_EPOCHS, 3, 1)
    made = arms.run_job(job, ARMS["distilled"], tiny, code=CODE, commit="0")
    assert made["generator"]["psnr"] > 0
    assert made["losses"]["distill"] > 0
