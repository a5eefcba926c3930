"""The comparison of strong baselines: equal CPU time, chosen on people that are not reported."""

from statistics import fmean

import pytest

from tests.benchmarks.__main__ import LONG_GROUPS
from tests.benchmarks.evidence import arms as evidence_arms
from tests.benchmarks.evidence import data, run, score
from tests.benchmarks.evidence.arms import recipe_of_arm
from tests.benchmarks.evidence.rows import RowsFile
from tests.benchmarks.groups import baselines
from tests.benchmarks.groups.baselines import ARMS, CONTROL, SEEDS, TIMING
from tools import readme

# What stands in for training: points of mAP that each arm has over fc512, and what an epoch costs
GAINS = {"bnneck": 4.0, "gem": 1.0, "cosine": 2.0, "circle": 3.0, "jitter": 0.5}
COSTS = {"bnneck": 1.5, "together": 1.2}
TEST_GAIN = -7.0  # of whatever is chosen, where it chose nothing


class StubQueue:
    """Runs whose results are made up; stops after so many, as a sitting may."""

    def __init__(self, kept, limit=10_000):
        self.kept, self.limit, self.ran = kept, limit, []

    def missing_jobs(self, jobs):
        names = ("arm", "budget", "seed")
        return [job for job in jobs if not self.kept.find(**{n: getattr(job, n) for n in names})]

    def run_jobs(self, jobs, arms):
        for job in self.missing_jobs(jobs):
            if len(self.ran) == self.limit:
                return
            self.ran.append(job)
            self.kept.rows.append(self.row_of(job, arms[job.arm]))

    def row_of(self, job, arm):
        gain = {**GAINS, "together": 6.0}.get(job.arm, -1.0 if job.arm != CONTROL else 0.0)
        gains = {"val": gain, "test": 0.0 if job.arm == CONTROL else TEST_GAIN}
        mean = 0.4 + job.seed / 100
        scores = {
            test: dict.fromkeys(("mAP", "rank1"), mean + g / 100) for test, g in gains.items()
        }
        seconds = job.epochs * COSTS.get(job.arm, 1.0) * job.seed
        recipe_of_arm(arm, job.epochs)  # whose fields fit each other
        return {**job._asdict(), "scores": scores, "cpu_seconds": seconds}


@pytest.fixture
def queue(tmp_path):
    return StubQueue(RowsFile(tmp_path / "rows.json"))


def measured(queue):
    baselines.measure_arms(queue)
    return {figure.name: figure.value for figure in baselines.figures_of_rows(queue.kept)}


def test_every_arm_changes_one_thing_of_the_baseline():
    control = evidence_arms.recipe_fields(recipe_of_arm(ARMS[CONTROL], 24))
    for name, arm in ARMS.items():
        fields = evidence_arms.recipe_fields(recipe_of_arm(arm, 24))
        changed = {field for field, value in fields.items() if value != control[field]}
        assert changed - {"classifier_scale"} == ({arm.overrides.split("=")[0]} - {""}), name
        assert (arm.targets, arm.start) == ("none", "none")


def test_an_arm_is_given_the_cpu_time_of_fc512(queue):
    baselines.measure_arms(queue)
    epochs = {job.arm: job.epochs for job in queue.ran if job.budget != TIMING}
    assert (epochs[CONTROL], epochs["gem"]) == (baselines.EPOCHS, baselines.EPOCHS)
    assert (epochs["bnneck"], epochs["together"]) == (16, 20)  # 24 / 1.5 and 24 / 1.2
    found = {figure.name: figure.value for figure in baselines.figures_of_rows(queue.kept)}
    assert found["baselines.best_vs_fc512_cpu"] == pytest.approx(1)
    assert found["baselines.bnneck_val_cpu_seconds"] == pytest.approx(24 * fmean(SEEDS))


def test_what_gained_alone_is_taken_together_once_a_field(queue):
    baselines.measure_arms(queue)
    (arm,) = baselines.combined_arm(queue.kept).values()
    assert set(arm.overrides.split()) == {
        *("embedding=bnneck", "pooling=gem", "jitter=0.3"),
        *("classifier=circle", "classifier_scale=16"),  # better than the cosine softmax
    }


def test_nothing_is_taken_together_where_less_than_two_gained(queue, monkeypatch):
    monkeypatch.setattr("tests.test_baselines.GAINS", {"gem": 2.0})
    baselines.measure_arms(queue)
    assert baselines.combined_arm(queue.kept) == {}
    assert baselines.chosen_arm(queue.kept) == "gem"
    monkeypatch.setattr("tests.test_baselines.GAINS", {})
    other = StubQueue(RowsFile(queue.kept.path))
    baselines.measure_arms(other)
    assert baselines.chosen_arm(other.kept) == CONTROL


def test_validation_people_choose_and_others_tell(queue, capsys):
    found = measured(queue)
    told = {name for name in found if name.endswith("_test_map")}
    assert told == {"baselines.fc512_test_map", "baselines.together_test_map"}
    assert baselines.chosen_arm(queue.kept) == "together"  # however it fares on the others
    assert found["baselines.best_vs_fc512_map"] == pytest.approx(TEST_GAIN)
    assert found["baselines.together_val_gain"] == pytest.approx(6)
    assert found["baselines.together_test_map"] == pytest.approx(42 + TEST_GAIN)
    assert "chosen: together (embedding=bnneck" in capsys.readouterr().out


def test_the_same_command_goes_on_where_time_was_short(queue, tmp_path):
    whole = measured(queue)
    kept = RowsFile(tmp_path / "parts.json")
    for _ in range((len(queue.ran) - 1) // 17):
        with pytest.raises(SystemExit, match="runs are left of this part: the same command goes"):
            baselines.measure_arms(StubQueue(kept, limit=17))
    assert measured(StubQueue(kept, limit=17)) == whole
    assert kept.rows == queue.kept.rows


def test_it_is_measured_when_it_is_named():
    assert "baselines" in LONG_GROUPS


def test_the_table_shows_every_arm():
    assert [name for name, _, _ in readme.BASELINES] == [*ARMS, baselines.TOGETHER]


class InlineQueue(StubQueue):
    """Runs that are real, one after another in this process."""

    def __init__(self, kept, cache):
        super().__init__(kept)
        self.cache = cache

    def row_of(self, job, arm):
        return run.run_job(job, arm, self.cache, code="c" * 64, commit="0")


@pytest.mark.slow
def test_arms_are_trained_and_judged(tmp_path, monkeypatch):
    for name, value in {"TRAIN_PEOPLE": 8, "VAL_PEOPLE": 3, "TEST_PEOPLE": 4}.items():
        monkeypatch.setattr(data, name, value)
    monkeypatch.setattr(data, "SET_SHAPE", {**data.SET_SHAPE, "cameras": 2, "shots": 2})
    monkeypatch.setattr(score, "SPLITS", {"val": (8, 3), "test": (11, 4)})
    monkeypatch.setattr(baselines, "SEEDS", (1,))
    monkeypatch.setattr(baselines, "EPOCHS", 4)
    few = {name: ARMS[name] for name in (CONTROL, "bnneck", "mirrored")}
    monkeypatch.setattr(baselines, "ARMS", few)
    queue = InlineQueue(RowsFile(tmp_path / "rows.json"), tmp_path)
    found = measured(queue)
    assert {job.arm for job in queue.ran if job.budget != TIMING} >= set(few)
    assert 0 < found["baselines.fc512_test_map"] <= 100
    assert not list(tmp_path.glob("own-*"))  # none of them needs SAN-PG
