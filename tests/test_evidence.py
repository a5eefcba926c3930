"""The machinery that measures whether textures help: pairs, intervals, subsets, rows, refusals."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from san_core.evaluation.kernels.distance import Tile
from san_core.evaluation.labels import Labels
from san_core.evaluation.ranking import rank_distances
from san_core.recipe import recipe_with_overrides
from san_core.recipes import get_recipe
from tests.benchmarks import step_cost
from tests.benchmarks.evidence import (
    arms,
    choices,
    data,
    figures,
    plan,
    reproduce,
    run,
    score,
    starts,
)
from tests.benchmarks.evidence.arms import ARMS, BASELINE, LARGE_ARMS, Arm, Job
from tests.benchmarks.evidence.code import strip_comments
from tests.benchmarks.evidence.paper import plot, summary, table
from tests.benchmarks.evidence.plan import EQUAL_EPOCHS, EQUAL_TIME, HARD, NORMAL, TIMING, Scale
from tests.benchmarks.evidence.queue import JobQueue
from tests.benchmarks.evidence.rows import (
    ForeignRowsError,
    RowsFile,
    mean_difference,
    paired_differences,
)
from tests.benchmarks.figure import Figure

CODE = "c" * 64
SIZE = (64, 32)
SAN_PG_SECONDS = 110.0
TEXTURE_SECONDS = 12.0


def row(arm, seed, score=0.5, val=None, **fields):
    """A row of an arm in equal CPU time at hard; val: its mAP on validation people."""
    epochs = fields.pop("epochs", 30)
    known = LARGE_ARMS if fields.pop("large", False) else ARMS
    settings = arms.recipe_of_arm(known[arm], epochs)
    shared = {"rank1": score, "front_to_back": score, "occluded": None, "cross_pose": score}
    tests = fields.pop("tests", ("val", "test"))
    scores = {test: {"mAP": score, **shared} for test in tests}
    if val is not None:
        scores["val"] = {"mAP": val, **shared}
    return {
        **Job(arm, HARD, EQUAL_TIME, epochs, seed)._asdict(),
        "tests": list(tests),
        "scores": scores,
        "cpu_seconds": 50.0,
        "texture_cpu_seconds": TEXTURE_SECONDS if known[arm].needs_pseudo else 0.0,
        "targets": known[arm].targets,
        "start": known[arm].start,
        "generator": generator_of(known[arm], settings),
        "shipped": run.shipped_fingerprint() if known[arm].uses_shipped else None,
        "recipe": arms.recipe_fields(settings),
        "data": "d" * 64,
        "code": CODE,
        "commit": "0123456",
        "machine": {"cpu": "abacus", "cores": 2, "python": "3.11", "torch": "2"},
        "date": "2020-02-02",
        **fields,
    }


def generator_of(arm, settings):
    told = {"cpu_seconds": SAN_PG_SECONDS, "recipe": None}
    if arm.start == starts.IDENTITY:
        told["epochs"] = 20.0
    recipe = run.recipe_of_start(arm, settings, told)
    if arm.start == starts.NONE:
        return None
    return {**told, "recipe": recipe and arms.recipe_fields(recipe)}


def timing_rows(seeds=(1, 2, 3), **seconds_an_epoch):
    """Rows of the first few epochs; seconds of an epoch by arm."""
    return [
        row(arm, seed, epochs=4, budget=TIMING, cpu_seconds=4 * seconds * (1 + seed / 10))
        for arm, seconds in seconds_an_epoch.items()
        for seed in seeds
    ]


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
    chosen_by = [row("full", 1, 0.5, val=0.7)]
    assert paired_differences(chosen_by, others, test="val") == pytest.approx([100 * (0.7 - 0.45)])


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


def test_rows_survive_in_the_file_and_share_their_recipe(tmp_path):
    kept_of(tmp_path, row("full", 1), row("full", 2), row("baseline", 1))
    again = RowsFile(tmp_path / "rows.json")
    assert [each["seed"] for each in again.rows] == [1, 2, 1]
    assert len(again.recipes) == 2
    assert again.recipe(again.rows[0]) == json.loads(json.dumps(row("full", 1)["recipe"]))
    assert len(again.find(arm="full", difficulty="hard")) == 2


TWO_ARMS = {name: ARMS[name] for name in (BASELINE, "full")}


def test_what_has_a_row_is_not_run_again(tmp_path):
    kept = kept_of(tmp_path, *timing_rows(baseline=2, full=4), row("full", 1))
    jobs = list(plan.decision_jobs(kept, Scale(seeds=2), TWO_ARMS))
    with JobQueue(1, kept, tmp_path, code=CODE, minutes=1) as queue:
        left = queue.missing_jobs(jobs)
    assert [(job.arm, job.seed) for job in left] == [("baseline", 1), ("baseline", 2), ("full", 2)]


def test_nothing_is_started_when_the_time_is_up(tmp_path, capsys):
    kept = kept_of(tmp_path)
    with JobQueue(1, kept, tmp_path, code=CODE, minutes=0) as queue:
        assert not queue.finish([Job("baseline", HARD, EQUAL_TIME, 30, 1)])
    assert capsys.readouterr().out == (
        "the time is up: 1 runs are left, the same command goes on\n"
    )
    assert kept.rows == []


def test_rows_of_other_code_are_refused(tmp_path):
    kept = kept_of(tmp_path, row("full", 1), row("full", 2, code="e" * 64))
    with pytest.raises(
        ForeignRowsError, match=r"full hard equal CPU time 2 was measured with code e{12}, today"
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


def test_rows_of_another_start_are_refused(tmp_path):
    figures.check_rows(kept_of(tmp_path / "a", *(row(arm, 1) for arm in ARMS)), CODE)
    other = row("baseline_pg", 1)
    other["generator"]["recipe"]["epochs"] = 99
    with pytest.raises(ForeignRowsError, match=r"baseline_pg .* epochs 99, today's is 12"):
        figures.check_rows(kept_of(tmp_path / "b", other), CODE)
    other = row("baseline_identity", 1)
    other["generator"]["recipe"]["lr"] = 99.0
    with pytest.raises(ForeignRowsError, match=r"baseline_identity .* lr 99\.0, today's is"):
        figures.check_rows(kept_of(tmp_path / "c", other), CODE)
    other = row("full", 1, shipped="e" * 64)
    with pytest.raises(ForeignRowsError, match=r"with the shipped generator e{12}, today's is"):
        figures.check_rows(kept_of(tmp_path / "d", other), CODE)


@pytest.mark.parametrize(
    ("name", "value"), [("machine", {"cpu": "slide rule"}), ("data", "e" * 64)]
)
def test_rows_that_cannot_be_compared_are_refused(tmp_path, name, value):
    kept = kept_of(tmp_path, row("full", 1), row("baseline", 1, **{name: value}))
    message = f"full hard equal CPU time 1 and baseline hard equal CPU time 1 differ in {name}, "
    with pytest.raises(ForeignRowsError, match=message):
        figures.check_rows(kept, CODE)
    elsewhere = kept_of(tmp_path / "other", row("full", 1), row("full", 2, data="e" * 64))
    figures.check_rows(elsewhere, CODE)  # another seed has other data


def test_nothing_is_measured_beside_rows_of_another_machine(tmp_path):
    kept = kept_of(tmp_path, row("full", 1))
    with JobQueue(1, kept, tmp_path, code=CODE, minutes=1) as queue:
        queue.run_jobs([Job("full", HARD, EQUAL_TIME, 30, 1)])  # is there
        with pytest.raises(ForeignRowsError, match=r"machine \{'cpu': 'abacus'.* today's is"):
            queue.run_jobs([Job("full", HARD, EQUAL_TIME, 30, 2)])


def test_figures_of_foreign_rows_are_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "ROWS", kept_of(tmp_path, row("full", 1)).path)
    with pytest.raises(SystemExit, match="was measured with code cccc"):
        next(figures.figures())


def sit_at(monkeypatch, path):
    """Let `make reproduce` keep its rows there."""
    sittings = {**reproduce.SITTINGS, "": reproduce.SITTINGS[""]._replace(results=path)}
    monkeypatch.setattr(reproduce, "SITTINGS", sittings)


def test_reproduce_refuses_foreign_rows_before_it_starts(tmp_path, monkeypatch, capsys):
    kept = kept_of(tmp_path, row("full", 1))
    sit_at(monkeypatch, kept.path)
    assert reproduce.main([]) == 1
    assert "measure anew with --anew" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "--jobs 0: at least one process is needed"),
        (["--choices", "--quick"], "not allowed with argument --choices"),
        (["--large", "--anew", "--quick"], "not allowed with argument --large"),
    ],
)
def test_reproduce_refuses_mistakes_and_keeps_the_rows(
    tmp_path, monkeypatch, capsys, words, message
):
    kept = kept_of(tmp_path, row("full", 1))
    sit_at(monkeypatch, kept.path)
    with pytest.raises(SystemExit) as stop:
        reproduce.main(words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert len(RowsFile(kept.path).rows) == 1


def test_rows_that_cannot_be_measured_anew_are_kept(tmp_path, monkeypatch):
    kept = kept_of(tmp_path, row("full", 1))
    sit_at(monkeypatch, kept.path)

    def stop(queue, scale):
        raise ForeignRowsError("stopped")

    monkeypatch.setattr(reproduce, "measure_arms", stop)
    assert reproduce.main(["--anew", "--cache", str(tmp_path)]) == 1
    assert len(RowsFile(kept.path).rows) == 1, "nothing was measured yet"


def test_code_is_the_same_whatever_is_said_about_it():
    one = '"""Doc."""\nimport a  # why\n\ndef f(x):\n    """Doc\n    more."""\n    return "#"\n'
    other = 'import a\ndef f(x):\n    return "#"\n'
    assert strip_comments(one) == strip_comments(other) != strip_comments(other.replace("#", "x"))


def test_an_arm_is_given_the_cpu_time_of_the_baseline_with_its_textures(tmp_path):
    kept = kept_of(tmp_path, *timing_rows(baseline=2.0, full=4.0))
    assert plan.epochs_in_time(kept, BASELINE, 32) == 32
    assert plan.epochs_in_time(kept, "baseline_shipped", 32) == 32  # whose steps are the same
    assert plan.epochs_in_time(kept, "oracle", 32) == 32 / 2  # whose textures cost nothing
    # in the middle seed an epoch of the baseline takes 2.4 s and 12 s of textures 5 epochs
    assert plan.epochs_in_time(kept, "full", 32) == round((32 - 5) / 2)
    with pytest.raises(ValueError, match="full has time for 2 epochs in that of 9 of the base"):
        plan.epochs_in_time(kept, "full", 9)


def test_arms_of_the_same_steps_are_timed_once():
    timed = plan.timed_arms(ARMS)
    assert timed == [BASELINE, "full", "rec", *(n for n in arms.CHEAP_ARMS if n in ARMS)]
    assert plan.timed_arms(LARGE_ARMS) == [BASELINE, "full"]


def test_the_first_quarter_of_epochs_has_textures_however_many_there_are():
    for epochs, textured in ((4, 1), (32, 8), (22, 6)):
        settings = arms.recipe_of_arm(ARMS["first_shipped"], epochs)
        assert settings.texture_epochs == textured
        assert arms.recipe_of_arm(ARMS["full_shipped"], epochs).texture_epochs == 0


def test_only_one_arm_spares_batches_and_it_is_the_recipe_of_rendered_people():
    for name, arm in ARMS.items():
        recipe = arms.recipe_of_arm(arm, 34)
        assert recipe.texture_every == (4 if name == "every_shipped" else 1), name
    for name in (BASELINE, "every_shipped"):
        chosen = get_recipe("synthetic-baseline" if name == BASELINE else "synthetic")
        kept = dataclasses.replace(chosen, checkpoint_every=34)
        assert arms.recipe_of_arm(ARMS[name], chosen.epochs) == kept


@pytest.mark.parametrize("name", [n for n in choices.VARIANTS if n.startswith("rec")])
def test_variants_without_l_tr_have_none_in_any_batch(name):
    recipe = arms.recipe_of_arm(choices.VARIANTS[name], 16)
    assert (recipe.active_losses, recipe.texture_every) == (("id", "tri", "rec"), 1)


def test_the_baseline_is_given_san_pgs_time_or_a_share_of_it(tmp_path):
    kept = kept_of(tmp_path, *timing_rows(baseline=2.0, kept_pg=2.0))
    jobs = list(plan.counted_jobs(kept, Scale(seeds=2)))
    epochs = SAN_PG_SECONDS / 2.4  # of the baseline, in the middle seed
    assert [(job.budget, job.epochs) for job in jobs[:2]] == [
        ("SAN-PG shared by 1", round(32 + epochs)),
        ("SAN-PG shared by 4", round(32 + epochs / 4)),
    ]
    assert [(job.arm, job.seed) for job in jobs] == [(BASELINE, seed) for seed in (1, 1, 2, 2)]


GAINS = {"every_shipped": 0.06, "baseline_shipped": 0.04, "baseline_identity": 0.2}


class StubQueue:
    """Runs whose results are made up: who starts as the shipped encoder gains, on all people."""

    def __init__(self, path, limit=10_000, gained_until=128):
        self.kept, self.limit, self.ran = RowsFile(path / "rows.json"), limit, []
        self.jobs_at_once, self.gained_until = 2, gained_until

    def finish(self, jobs, known=ARMS):
        for job in jobs:
            names = ("arm", "difficulty", "budget", "seed")
            if self.kept.find(**{name: getattr(job, name) for name in names}):
                continue
            if len(self.ran) == self.limit:
                return False
            self.ran.append(job)
            slowness = 40 if known is LARGE_ARMS else 0.4 if job.people < 100 else 1
            seconds = job.epochs * known[job.arm].cost * slowness
            found = 0.4 + GAINS.get(job.arm, 0) + job.seed / 100
            found += min(job.epochs, self.gained_until) / 1000
            self.kept.rows.append(
                row(
                    job.arm,
                    job.seed,
                    found,
                    cpu_seconds=seconds,
                    large=known is LARGE_ARMS,
                    **{name: getattr(job, name) for name in ("difficulty", "budget", "epochs")},
                    people=job.people,
                    tests=job.tests,
                )
            )
        return True


def test_what_decides_is_measured_first_and_all_that_is_planned_is(tmp_path, capsys):
    queue = StubQueue(tmp_path)
    reproduce.measure_arms(queue, Scale())
    budgets = list(dict.fromkeys((job.difficulty, job.budget) for job in queue.ran))
    assert budgets == [
        (HARD, TIMING),
        (HARD, EQUAL_TIME),
        (HARD, "SAN-PG shared by 1"),
        (HARD, "SAN-PG shared by 4"),
        (NORMAL, EQUAL_TIME),
        (HARD, EQUAL_EPOCHS),
        *((HARD, plan.LONG.format(epochs)) for epochs in (32, 64, 128, 256)),
    ]
    assert "at most 3." in capsys.readouterr().out  # CPU hours
    found = plan.parts(queue.kept, Scale())
    assert [part.done for part in found] == [part.runs for part in found]
    assert "at most 0.0 CPU hours" in reproduce.plan_text(found, at_once=2)
    decided = [job for job in queue.ran if (job.difficulty, job.budget) == (HARD, EQUAL_TIME)]
    assert [job.seed for job in decided] == sorted(job.seed for job in decided)
    assert {(job.arm, job.seed) for job in decided} == {(a, s) for a in ARMS for s in range(1, 6)}


def test_it_goes_on_where_it_was_stopped(tmp_path):
    whole, parts = StubQueue(tmp_path / "a"), StubQueue(tmp_path / "b", limit=60)
    reproduce.measure_arms(whole, Scale())
    for _ in range(len(whole.ran) // 60 + 1):
        reproduce.measure_arms(parts, Scale())
        parts.ran = []
    assert parts.kept.rows == whole.kept.rows


def test_long_training_is_of_the_two_best_on_validation_people_and_ends_in_time(tmp_path):
    queue = StubQueue(tmp_path)
    reproduce.measure_arms(queue, Scale())
    lasting = [job for job in queue.ran if job.people == plan.LONG_PEOPLE]
    assert {job.arm for job in lasting} == {BASELINE, "every_shipped", "baseline_shipped"}
    # nothing is gained from 128 epochs to 256, which is the last doubling
    assert figures.has_converged(queue.kept, 3)
    assert not figures.has_converged(queue.kept, 2)
    soon = StubQueue(tmp_path / "soon", gained_until=64)
    reproduce.measure_arms(soon, Scale())
    assert plan.LONG.format(128) in {job.budget for job in soon.ran}
    assert plan.LONG.format(256) not in {job.budget for job in soon.ran}


def test_a_control_is_never_chosen_and_who_chooses_is_not_reported_on(tmp_path):
    kept = kept_of(
        tmp_path,
        *(row(BASELINE, seed, 0.5) for seed in (1, 2)),
        *(row("baseline_identity", seed, 0.9, val=0.9) for seed in (1, 2)),
        *(row("oracle", seed, 0.9, val=0.9) for seed in (1, 2)),
        *(row("full", seed, 0.4 + seed / 100, val=0.8) for seed in (1, 2)),
        *(row("rec", seed, 0.7, val=0.6) for seed in (1, 2)),
        row("full_shipped", 1, 0.9, val=0.9),  # of fewer seeds
    )
    assert figures.best_arms(kept, 2) == ["full", "rec"]
    found = {figure.name: figure.value for figure in figures.figures_of_rows(kept)}
    half = stats.t.ppf(0.975, 1) * 0.5  # of -9 and -8
    assert found["evidence.equal_time_map_gain"] == pytest.approx(-8.5)
    assert found["evidence.equal_time_gain"] == pytest.approx(-8.5 - half)


def test_an_arm_of_san_pg_is_judged_with_its_time(tmp_path):
    kept = kept_of(
        tmp_path,
        *(row(BASELINE, seed, 0.50) for seed in (1, 2)),
        *(row("baseline_pg", seed, 0.60) for seed in (1, 2)),
        *(row("full", seed, 0.51) for seed in (1, 2)),
    )
    assert figures.best_arms(kept, 1) == ["full"], "nothing is known with SAN-PG's time"
    for share, score_then in ((1, 0.55), (4, 0.52)):
        for seed in (1, 2):
            kept.add(row(BASELINE, seed, score_then, budget=plan.COUNTED.format(share)))
    assert figures.best_arms(kept, 1) == ["baseline_pg"]
    assert figures.fair_gain(kept, "baseline_pg").mean == pytest.approx(5)
    assert figures.counted_gain(kept, "baseline_pg", 4).mean == pytest.approx(8)
    assert figures.gain(kept, "baseline_pg").mean == pytest.approx(10)


def measured(path):
    queue = StubQueue(path)
    reproduce.measure_arms(queue, Scale())
    return queue.kept


def test_figures_are_means_and_paired_gains(tmp_path):
    found = {figure.name: figure.value for figure in figures.figures_of_rows(measured(tmp_path))}
    name = "evidence.hard.equal_CPU_time.baseline"
    assert found[f"{name}.test_mAP"] == pytest.approx(100 * (0.4 + 0.03 + 0.032))
    assert found[f"{name}.seeds"] == 5
    assert found["evidence.normal.equal_CPU_time.full.elsewhere_mAP_gain"] < 0
    assert found["evidence.gain_of_doubling_3"] == pytest.approx(0)
    assert "evidence.hard.a_few_epochs.baseline.seeds" not in found


def test_losses_are_compared_with_the_same_start_without_them(tmp_path):
    scores = {BASELINE: 0.4, "full": 0.38, "baseline_shipped": 0.6, "every_shipped": 0.55}
    kept = kept_of(
        tmp_path, *(row(arm, seed, score) for arm, score in scores.items() for seed in (1, 2))
    )
    assert figures.loss_gain(kept, "full").mean == pytest.approx(-2)
    assert figures.loss_gain(kept, "every_shipped").mean == pytest.approx(-5)
    assert figures.best_arms(kept, 1) == ["baseline_shipped"]
    assert figures.best_arms(kept, 1, with_losses=True) == ["every_shipped"]
    found = {figure.name: figure.value for figure in figures.figures_of_rows(kept)}
    assert found["evidence.equal_time_map_gain"] == pytest.approx(20)
    assert found["evidence.equal_time_losses_map_gain"] == pytest.approx(15)
    assert found["evidence.losses_of_every_shipped_map_gain"] == pytest.approx(-5)
    text = table.results_table(kept)
    assert "it loses to the baseline of the same start (-5.0 ± 0.0, 2 seeds)" in text


def test_table_shows_every_question(tmp_path):
    text = table.results_table(measured(tmp_path))
    for head in (
        "| `hard`, equal CPU time (32 epochs of the baseline) |",
        "| `hard`, training of SAN-PG or of the control's start counted |",
        "| trained on `normal`, equal CPU time |",
        "| `hard`, 16 epochs each |",
        "| `hard`, 40 people to train on |",
    ):
        assert head in text
    for arm in ARMS.values():
        assert f"| {arm.words}{table.mark(arm)} |" in text
    assert "Among those with texture losses, they choose" in text
    for line in text.split("\n\n")[0].splitlines()[1:]:
        assert line.count("|") == text.splitlines()[0].count("|")
    assert f"validation people choose *{ARMS['every_shipped'].words}*" in text
    assert table.results_table(RowsFile(tmp_path / "none.json")) == table.UNMEASURED


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ((2.0, 3.0, 4.0), "it gains on the baseline (+3.0 ± 2.5, 3 seeds)"),
        ((-2.0, -3.0, -4.0), "it loses to the baseline (-3.0 ± 2.5, 3 seeds)"),
        ((-1.0, 3.0, 4.0), "no difference to the baseline was shown (+2.0 ± 6.6, 3 seeds)"),
        ((9.0,), "no difference to the baseline was shown (+9.0, 1 seed)"),
    ],
)
def test_no_sentence_claims_more_than_its_interval(values, told):
    assert table.verdict(mean_difference(values)) == told


@pytest.mark.parametrize(
    ("values", "told", "does_pay"),
    [
        ((2.0, 3.0, 4.0), "+3.0 ± 2.5", True),
        ((-2.0, -3.0, -4.0), "-3.0 ± 2.5", False),
        ((-1.0, 3.0, 4.0), "+2.0 ± 6.6 (no difference shown)", False),
        ((9.0,), "+9.0 (one seed)", False),
    ],
)
def test_the_lines_of_the_readme_say_what_was_not_shown(values, told, does_pay):
    found = mean_difference(values)
    assert summary.effect(found) == told
    assert summary.pays(found) is does_pay
    assert summary.effect(None) == "(not measured)"


def test_the_lines_of_the_readme_advise_by_what_was_shown(tmp_path):
    nothing = RowsFile(tmp_path / "none.json")
    assert summary.summary_text(nothing, nothing) == table.UNMEASURED
    kept = measured(tmp_path)
    lines = summary.summary_text(kept, nothing).splitlines()
    assert [line[0] for line in lines] == list("12345")
    # what is made up gains by its epochs, of which arms with textures have fewer in equal time
    assert "Leave texture losses off where CPU time" in lines[2]
    assert "validation people choose *full in every fourth batch" in lines[2]
    assert "Use it." in lines[2]
    assert lines[4].endswith("nobody has measured them.")
    for seed in range(1, 6):
        found = kept.find(arm="full", budget=EQUAL_TIME, difficulty=HARD, seed=seed)
        found[0]["scores"]["test"]["mAP"] = 0.6 + seed / 100
    assert "losses on without a start, else off" in summary.summary_text(kept, nothing)


def test_table_shows_the_larger_encoder_and_its_seeds(tmp_path):
    queue = StubQueue(tmp_path)
    reproduce.measure_large(queue, Scale(seeds=2, epochs=16, timed_epochs=3))
    assert {job.arm for job in queue.ran} == set(LARGE_ARMS)
    figures.check_rows(kept_of(tmp_path, *queue.kept.rows), CODE, LARGE_ARMS)
    text = table.results_table(RowsFile(tmp_path / "none.json"), queue.kept)
    assert text.startswith("| ResNet-18, 128x64: `hard`, equal CPU time (16 epochs")
    assert f"| {LARGE_ARMS['full'].words} | 2 |" in text


def test_plot_holds_the_hash_of_its_table(tmp_path):
    kept = measured(tmp_path)
    (tmp_path / "plot.png").write_bytes(plot.results_plot(kept))
    with Image.open(tmp_path / "plot.png") as image:
        assert image.size == (1400, 550)
        told = image.text["Description"]
    assert told == hashlib.sha256(table.results_table(kept).encode()).hexdigest()


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tiny(monkeypatch, cache):
    """The cache of small sets."""
    for name, value in {"TRAIN_PEOPLE": 9, "VAL_PEOPLE": 3, "TEST_PEOPLE": 4}.items():
        monkeypatch.setattr(data, name, value)
    shape = {**data.SET_SHAPE, "cameras": 2, "shots": 2}
    monkeypatch.setattr(data, "SET_SHAPE", shape)
    pit = dataclasses.replace(data.PIT, identities=12, meshes=4)
    for module in (data, starts):
        monkeypatch.setattr(module, "PIT", pit)
    monkeypatch.setattr(score, "SPLITS", {"val": (9, 3), "test": (12, 4)})
    monkeypatch.setattr(starts, "GENERATOR_RECIPE", ("demo-pg", "epochs=1 warmup_epochs=0"))
    return cache


@pytest.mark.slow
def test_run_trains_and_judges_on_people_apart(tiny):
    them = data.rendered_set(tiny, HARD, 1, SIZE)
    query, gallery = score.query_and_gallery_rows(them, "test")
    assert len(query) == 4 * 2
    assert len(gallery) == 4 * 2
    assert not set(them.identity[query]) & set(them.identity[them.train_rows])
    job = Job("full", HARD, EQUAL_TIME, 3, 1, people=8)
    made, again = (run.run_job(job, ARMS["full"], tiny, code=CODE, commit="0") for _ in "12")
    assert 0 < made["scores"]["test"]["mAP"] <= 1
    assert made["scores"]["val"] != made["scores"]["test"]
    assert made["cpu_seconds"] > 0
    seconds = starts.seen_textures(tiny, HARD, 1, SIZE).cpu_seconds
    assert made["texture_cpu_seconds"] == pytest.approx(seconds * 8 / 9, abs=0.01)
    assert made["data"] == them.fingerprint
    took = {"cpu_seconds": 0}
    assert {**made, **took} == {**again, **took}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["baseline_shipped", "baseline_pg", "kept_pg", "distilled"])
def test_arms_that_start_as_another_network_are_trained_and_judged(tiny, name):
    job = Job(name, HARD, EQUAL_TIME, 3, 1)
    made = run.run_job(job, ARMS[name], tiny, code=CODE, commit="0")
    assert ("distill" in made["losses"]) == (name == "distilled")
    assert ("psnr" in made["generator"]) == (ARMS[name].start == starts.OWN)
    assert 0 < made["scores"]["test"]["mAP"] <= 1


@pytest.mark.slow
def test_the_rival_of_san_pg_has_its_time_and_its_pictures_and_is_judged_elsewhere(tiny):
    settings = arms.recipe_of_arm(ARMS["baseline_identity"], 3)
    rival = starts.trained_start(tiny, starts.IDENTITY, settings)
    assert rival.facts["epochs"] >= starts.TIMED_EPOCHS
    job = Job("baseline_identity", NORMAL, EQUAL_TIME, 3, 1, tests=plan.GAP_TESTS)
    made = run.run_job(job, ARMS["baseline_identity"], tiny, code=CODE, commit="0")
    assert list(made["scores"]) == list(plan.GAP_TESTS)
    assert len({scores["mAP"] for scores in made["scores"].values()}) == 4
    figures.check_rows(kept_of(tiny, made), CODE)


def test_true_textures_are_those_of_the_person_in_the_image(tiny):
    them = data.rendered_set(tiny, HARD, 1, SIZE)
    settings = arms.recipe_of_arm(ARMS["oracle"], 3)
    made = data.training_data(them, "true", settings, people=5)
    asked = data.set_spec(HARD, 1, SIZE)
    assert len(made.images) == 5 * 2 * 2
    for row, person in enumerate(made.labels):
        own = data.reid_texture(asked, person)
        expected = data.area_average(own, settings.texture_size)
        found = made.textures[made.texture_index[row]].astype(int)
        assert np.abs(found - expected).max() <= 1  # rounded twice


def test_targets_are_of_the_recipes_size(tiny):
    them = data.rendered_set(tiny, HARD, 1, SIZE)
    settings = arms.recipe_of_arm(Arm("", "synthetic"), 3)
    pseudo = np.zeros((len(them.train_rows), data.TEXTURE_SIZE, data.TEXTURE_SIZE, 3), np.uint8)
    for targets in data.TARGETS[1:]:
        made = data.training_data(them, targets, settings, pseudo=pseudo)
        assert made.textures.shape[1:] == (settings.texture_size, settings.texture_size, 3)
        assert len(made.texture_index) == len(them.train_rows) == 9 * 2 * 2
    with pytest.raises(ValueError, match="no targets 'none of these'; there are none, pseudo"):
        data.training_data(them, "none of these", settings)


def test_people_elsewhere_are_those_to_report_on_alone(tiny):
    them = data.rendered_set(tiny, data.ELSEWHERE, 1, SIZE)
    assert set(them.identity) == {12, 13, 14, 15}
    assert len(them.textures) == len(them.train_rows) == 0


def test_choices_are_shown_beside_the_baseline_of_their_seeds(tmp_path):
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
    assert {job.tests for job in jobs} == {("val",)}
    people = [set(range(first, first + count)) for first, count in score.SPLITS.values()]
    people.append(set(range(data.TRAIN_PEOPLE)))
    assert sum(map(len, people)) == len(set.union(*people))


def test_recorded_choices_are_those_of_their_table():
    recorded = choices.choices_table(RowsFile(choices.CHOICES_ROWS))
    assert choices.CHOICES_TABLE.read_text("utf-8") == recorded + "\n"


def test_recorded_table_and_plot_are_those_of_the_recorded_rows():
    kept, large = RowsFile(figures.ROWS), RowsFile(figures.LARGE_ROWS)
    assert table.TABLE_FILE.read_text("utf-8") == table.results_table(kept, large) + "\n"
    told = summary.SUMMARY_FILE.read_text("utf-8")
    assert told == summary.summary_text(kept, large) + "\n"
    with Image.open(plot.PLOT_FILE) as image:
        assert image.text["Description"] == plot.table_hash(kept, large), (
            "make bench GROUP=evidence"
        )
    recorded = json.loads((figures.RESULTS / "evidence.json").read_bytes())["figures"]
    expected = {figure.name: figure for figure in figures.all_figures(kept, large)}
    assert recorded.keys() == expected.keys(), "make bench GROUP=evidence"
    for name, figure in expected.items():
        assert recorded[name]["value"] == pytest.approx(figure.value), "make bench GROUP=evidence"
        assert recorded[name]["unit"] == figure.unit


def test_costs_of_a_step_are_shown_beside_the_baseline(monkeypatch):
    settled = step_cost.short_recipe("first_shipped")
    assert (settled.texture_epochs, settled.epochs) == (1, 4)
    monkeypatch.setattr(step_cost, "MEASURED", ("every_shipped", "distilled"))
    monkeypatch.setattr(step_cost, "short_training", lambda settings: settings)
    monkeypatch.setattr(step_cost, "median_cpu_seconds", lambda *_, **__: [2.0, 3.0, 2.5])
    assert list(step_cost.figures()) == [
        Figure("evidence.step_cost_every_shipped", 3 / 2, "ratio"),
        Figure("evidence.step_cost_distilled", 2.5 / 2, "ratio"),
    ]


@pytest.mark.parametrize("name", arms.CHEAP_ARMS)
def test_a_cheap_form_trains_on_noise(name):
    words = "epochs=1 texture_epochs=0 warmup_epochs=0 decoder_width=0.25"
    settings = recipe_with_overrides(step_cost.short_recipe(name), words)
    (report,) = step_cost.short_training(settings, batches=1)()
    assert list(report.terms) == list(settings.active_losses)
