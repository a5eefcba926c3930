"""A TrainJob that a later attempt adopts while an earlier one is there, or is stopped late."""

import contextlib
import os
import signal
import time

import pytest

from components.__main__ import main
from components.nodes import api, on_nodes
from components.process import messages
from components.storage import retry
from components.storage.places import open_storage
from components.storage.transfer import delete_artifact
from tests.components.nodes.pod import attempt, words
from tests.components.nodes.test_on_nodes import leave_behind, put_outputs
from tests.servers import trainer_stub
from tests.servers.trainer_stub import LATER_PODS, POD_NAME, Request, TrainerStub, own_pod, status

FOLLOWER = "san-pipeline/follower"
SECOND, THIRD = LATER_PODS


def named(pod: str) -> str:
    """The pod of an attempt as the annotation and the messages name it."""
    metadata = own_pod(pod)["metadata"]
    return f"{pod}/{metadata['uid']}/{metadata['creationTimestamp']}"


def only_name(stub: TrainerStub) -> str:
    (name,) = stub.jobs
    return name


def follower(stub: TrainerStub) -> str:
    return stub.jobs[only_name(stub)]["metadata"]["annotations"][FOLLOWER]


def adopt(stub: TrainerStub, pod: str = SECOND) -> None:
    """Adopt the TrainJob as the attempt of another pod does."""
    stub.touch(only_name(stub), **{FOLLOWER: named(pod)})


def goes_on(stub: TrainerStub, pod: str = SECOND) -> str:
    return f"attempt {named(pod)} goes on with TrainJob {only_name(stub)}"


def wait_for(condition) -> None:
    until = time.monotonic() + 300  # much is done at once on some machines
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def is_look(request: Request) -> bool:
    """Whether it reads the TrainJob."""
    return request.method == "GET" and "/trainjobs/" in request.path


@contextlib.contextmanager
def after(stub: TrainerStub, is_wanted, do):
    """Within the block, `do` runs once, after the first request that `is_wanted`."""
    done = []

    def answer(request: Request) -> None:
        if not done and is_wanted(request):
            done.append(request)
            do()

    stub.on_answer = answer
    yield
    stub.on_answer = lambda _: None
    assert done


def stop() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def stop_after_first_look(stub: TrainerStub, before, on_look=lambda: None) -> None:
    """Stop this process when it follows; `before` runs just before, `on_look` after later looks."""
    stopped = []

    def answer(request: Request) -> None:
        if stopped and is_look(request):
            on_look()
        if request.path.endswith("/pods") and not stopped:
            stopped.append(request)
            before()
            stop()

    stub.on_answer = answer


def test_a_pod_that_is_stopped_late_leaves_the_trainjob_to_the_one_that_adopted_it(stub, tmp_path):
    given = words("s3://b/root", tmp_path)
    with (
        attempt(POD_NAME, tmp_path, given, seconds_between_looks=600) as first,
        contextlib.ExitStack() as later,
    ):
        wait_for(lambda: stub.asked("GET", "/pods"))
        assert follower(stub) == named(POD_NAME)
        second = later.enter_context(attempt(SECOND, tmp_path, given))
        wait_for(lambda: len(stub.asked("GET", "/pods")) > 1)
        assert first.stop() == 143
        assert len(stub.asked("DELETE")) == 1  # and it was refused
        assert follower(stub) == named(SECOND)
        assert first.last_words == "train_san: stopped by SIGTERM"
        assert goes_on(stub) in first.log.splitlines()[-2]
        assert second.process.poll() is None
        assert second.stop() == 143
    assert stub.jobs == {}
    assert "is deleted" in second.log


def test_of_three_attempts_the_last_goes_on_and_the_others_end(stub, tmp_path):
    given = words("s3://b/root", tmp_path)
    with attempt(POD_NAME, tmp_path, given) as first:
        wait_for(lambda: stub.asked("GET", "/pods"))
        with attempt(SECOND, tmp_path, given) as second:
            assert first.process.wait(300) == 1
            assert first.last_words == f"train_san: {goes_on(stub)}"
            assert first.log.splitlines()[-1] == first.last_words
            with attempt(THIRD, tmp_path, given) as third:
                assert second.process.wait(300) == 1
                assert second.last_words == f"train_san: {goes_on(stub, THIRD)}"
                assert stub.asked("DELETE") == []
                assert third.process.poll() is None
                assert third.stop() == 143
    assert stub.jobs == {}


def test_a_pod_that_is_stopped_deletes_the_version_that_it_has_read(stub, tmp_path):
    read = []
    stop_after_first_look(stub, lambda: read.append(stub.jobs[only_name(stub)]["metadata"].copy()))
    assert main(words("s3://b/root", tmp_path)) == 143
    (asked,) = stub.asked("DELETE")
    assert asked.body["preconditions"] == {
        "uid": read[-1]["uid"],
        "resourceVersion": read[-1]["resourceVersion"],
    }
    assert len([one for one in stub.requests if is_look(one)]) == 1  # that of following
    assert stub.jobs == {}


def test_an_adoption_between_reading_and_deleting_keeps_the_trainjob(stub, tmp_path, capfd):
    stop_after_first_look(stub, lambda: adopt(stub))
    assert main(words("s3://b/root", tmp_path)) == 143
    assert len(stub.asked("DELETE")) == 1  # and it was refused
    assert follower(stub) == named(SECOND)
    assert goes_on(stub) in capfd.readouterr().err.splitlines()[-2]


def test_a_change_between_reading_and_deleting_is_read_again(stub, tmp_path):
    stop_after_first_look(stub, lambda: stub.touch(only_name(stub)))
    assert main(words("s3://b/root", tmp_path)) == 143
    assert len(stub.asked("DELETE")) == 2
    assert stub.jobs == {}


def test_a_trainjob_that_changes_at_every_look_ends_the_pod_all_the_same(stub, tmp_path, capfd):
    def change() -> None:
        stub.touch(only_name(stub))

    stop_after_first_look(stub, change, change)
    assert main(words("s3://b/root", tmp_path)) == 143
    assert len(stub.asked("DELETE")) == 5
    assert "may remain: " in (log := capfd.readouterr().err)
    assert "changed 5 times while it was to be deleted" in log


def test_a_pod_that_is_stopped_does_not_ask_a_slow_api_for_ever(stub, tmp_path, monkeypatch, capfd):
    """Each answer takes 0.4 s, so that the third does not come in time."""
    monkeypatch.setattr(on_nodes, "SECONDS_TO_DELETE", 1.0, raising=False)
    asked = []

    def change() -> None:
        stub.touch(only_name(stub))

    def be_slow() -> None:
        change()
        stub.is_away = lambda: asked.append(time.sleep(0.4)) is not None

    stop_after_first_look(stub, be_slow, change)
    assert main(words("s3://b/root", tmp_path)) == 143
    assert len(asked) <= 3
    assert "may remain: " in capfd.readouterr().err
    assert len(stub.jobs) == 1


def test_a_pod_that_is_stopped_before_it_adopts_deletes_the_trainjob_of_a_dead_attempt(
    stub, tmp_path, monkeypatch, capfd
):
    given = words("s3://b/root", tmp_path)
    leave_behind(stub, given)
    monkeypatch.setenv("HOSTNAME", SECOND)
    with after(stub, is_look, stop):
        assert main(given) == 143
    assert stub.asked("PATCH") == []
    assert stub.jobs == {}
    log = capfd.readouterr().err
    assert "goes on with TrainJob" not in log
    assert "is deleted" in log


def test_a_pod_that_is_stopped_before_it_adopts_leaves_the_trainjob_of_a_later_one(
    stub, tmp_path, capfd
):
    given = words("s3://b/root", tmp_path)
    leave_behind(stub, given)
    adopt(stub)
    with after(stub, is_look, stop):
        assert main(given) == 143
    assert stub.asked("DELETE") == []
    assert goes_on(stub) in capfd.readouterr().err.splitlines()[-2]


def test_a_pod_that_is_stopped_leaves_a_different_trainjob(stub, tmp_path, monkeypatch, capfd):
    leave_behind(stub, words("s3://b/root", tmp_path))
    monkeypatch.setenv("HOSTNAME", SECOND)
    with after(stub, is_look, stop):
        assert main(words("s3://b/root", tmp_path, "--seed", "1")) == 143
    assert stub.asked("DELETE") == []
    assert "has a different TrainJob" in capfd.readouterr().err


def test_a_pod_that_is_stopped_before_it_creates_does_not_claim_a_deletion(
    stub, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(api.Kubernetes, "create_train_job", lambda *_: stop())
    assert main(words("s3://b/root", tmp_path)) == 143
    log = capfd.readouterr().err
    assert "does not exist" in log
    assert "is deleted" not in log


def test_a_trainjob_that_names_no_follower_any_more_is_left_alone(stub, tmp_path):
    def forget() -> None:
        del stub.jobs[only_name(stub)]["metadata"]["annotations"][FOLLOWER]

    stub.statuses = [{}, {}, {}, status("Failed")]
    with after(stub, lambda request: request.path.endswith("/pods"), forget):
        assert main(words("s3://b/root", tmp_path)) == 1
    assert messages.TERMINATION_LOG.read_text() == (
        f"train_san: an attempt without a name goes on with TrainJob {only_name(stub)}"
    )
    assert stub.asked("DELETE") == []


def leave_to(stub: TrainerStub, given: list[str], pod: str, monkeypatch) -> None:
    """Let the attempt of this pod end, as another one adopts its TrainJob; `pod` is the next."""
    stub.statuses = [{}, {}, {}, status("Failed")]
    with after(stub, lambda request: request.path.endswith("/pods"), lambda: adopt(stub)):
        assert main(given) == 1
    monkeypatch.setenv("HOSTNAME", pod)


def test_a_trainjob_that_changes_while_it_is_adopted_is_read_again(stub, tmp_path, monkeypatch):
    given = words("s3://b/root", tmp_path)
    leave_to(stub, given, THIRD, monkeypatch)
    stub.statuses = [{}, {}, {}, status("Failed")]
    with after(stub, is_look, lambda: stub.touch(only_name(stub))):
        assert main(given) == 1
    assert len(stub.asked("PATCH")) == 2
    assert follower(stub) == named(THIRD)


def test_a_failed_trainjob_that_another_attempt_has_replaced_is_not_deleted(
    stub, tmp_path, monkeypatch
):
    given = words("s3://b/root", tmp_path)
    leave_to(stub, given, THIRD, monkeypatch)

    def replace() -> None:
        stub.jobs[only_name(stub)]["metadata"]["uid"] = "another"
        stub.touch(only_name(stub))

    stub.statuses = [status("Failed"), {}, {}, {}, status("Failed")]
    with after(stub, is_look, replace):
        assert main(given) == 1
    assert len(stub.asked("DELETE")) == 1  # and it was refused
    assert stub.jobs[only_name(stub)]["metadata"]["uid"] == "another"
    assert follower(stub) == named(THIRD)


def test_a_trainjob_that_another_attempt_creates_at_once_is_adopted(stub, tmp_path, monkeypatch):
    given = words("s3://b/root", tmp_path)
    leave_to(stub, given, THIRD, monkeypatch)
    monkeypatch.setattr(on_nodes, "SECONDS_UNTIL_GONE", 5.0)
    kept = dict(stub.jobs)

    def create() -> None:
        stub.jobs.update(kept)
        metadata = stub.jobs[only_name(stub)]["metadata"]
        del metadata["deletionTimestamp"]
        metadata["uid"] = "another"

    stub.statuses = [status("Failed"), {}, {}, {}, status("Failed")]
    with after(stub, lambda request: request.method == "DELETE", create):
        assert main(given) == 1
    assert stub.jobs[only_name(stub)]["metadata"]["uid"] == "another"
    assert follower(stub) == named(THIRD)


@pytest.mark.parametrize("in_one_second", [False, True])
def test_an_earlier_pod_that_wakes_leaves_a_replaced_trainjob_to_the_later_one(
    stub, tmp_path, monkeypatch, in_one_second
):
    """In one second, the greater uid is the later one."""
    if in_one_second:
        monkeypatch.setattr(trainer_stub, "CREATED", dict.fromkeys(trainer_stub.CREATED, "2026"))
    given = words("s3://b/root", tmp_path)
    stub.statuses = [status("Failed")]
    assert main(given) == 1
    kept = dict(stub.jobs)

    def replace() -> None:
        stub.jobs.update(kept)
        metadata = stub.jobs[only_name(stub)]["metadata"]
        del metadata["deletionTimestamp"]
        metadata["uid"] = "another"
        adopt(stub)

    stub.statuses = [status("Failed"), {}, {}, {}, status("Failed")]
    with after(stub, lambda request: request.method == "DELETE", replace):
        assert main(given) == 1
    assert messages.TERMINATION_LOG.read_text() == f"train_san: {goes_on(stub)}"
    assert follower(stub) == named(SECOND)
    assert stub.asked("PATCH") == []


def test_an_earlier_pod_leaves_a_failed_trainjob_of_a_later_one(stub, tmp_path, monkeypatch):
    given = words("s3://b/root", tmp_path)
    monkeypatch.setenv("HOSTNAME", SECOND)
    stub.statuses = [status("Failed")]
    assert main(given) == 1
    monkeypatch.setenv("HOSTNAME", POD_NAME)
    assert main(given) == 1
    assert messages.TERMINATION_LOG.read_text() == f"train_san: {goes_on(stub)}"
    assert stub.asked("DELETE") == []


def test_a_trainjob_whose_annotation_has_no_time_is_adopted(stub, tmp_path, monkeypatch):
    given = words("s3://b/root", tmp_path)
    leave_behind(stub, given)
    stub.touch(only_name(stub), **{FOLLOWER: named(SECOND).rpartition("/")[0]})
    stub.statuses = [{}, {}, status("Failed")]
    assert main(given) == 1
    assert follower(stub) == named(POD_NAME)


def while_fetching(monkeypatch, do) -> None:
    """Let `do` run after a folder was fetched."""
    fetch = on_nodes.fetch_artifact

    def fetch_and_do(uri, folder):
        fetch(uri, folder)
        do()

    monkeypatch.setattr(on_nodes, "fetch_artifact", fetch_and_do)


def scratch(stub: TrainerStub, root: str) -> str:
    return f"{root}/san-nodes/{stub.asked('POST')[0].body['metadata']['name']}"


@pytest.mark.s3
def test_outputs_stay_for_an_attempt_that_adopts_while_they_are_fetched(
    stub, s3, tmp_path, monkeypatch
):
    root = f"{s3}/root"
    stub.on_create, stub.statuses = put_outputs, [status("Complete")]
    while_fetching(monkeypatch, lambda: adopt(stub))
    assert main(words(root, tmp_path)) == 1
    assert messages.TERMINATION_LOG.read_text() == f"train_san: {goes_on(stub)}"
    assert stub.asked("DELETE") == []
    assert open_storage(scratch(stub, root)).stat("model/weights.safetensors")
    assert not (tmp_path / "executor_output.json").exists()


@pytest.mark.s3
def test_outputs_stay_for_an_attempt_that_adopts_before_they_are_deleted(
    stub, s3, tmp_path, monkeypatch, capfd
):
    root = f"{s3}/root"
    stub.on_create, stub.statuses = put_outputs, [status("Complete")]
    write = on_nodes.write_executor_output

    def write_and_adopt(*given):
        write(*given)
        adopt(stub)

    monkeypatch.setattr(on_nodes, "write_executor_output", write_and_adopt)
    assert main(words(root, tmp_path)) == 0
    assert len(stub.asked("DELETE")) == 1  # and it was refused
    assert follower(stub) == named(SECOND)
    assert open_storage(scratch(stub, root)).stat("model/weights.safetensors")
    assert f"{scratch(stub, root)} stays: {goes_on(stub)}" in capfd.readouterr().err


# What happens to outputs, and whether they count although nothing tells who follows.
CHANGES = {
    "nothing": (lambda _: None, True),
    "a deletion": (lambda storage: delete_artifact(f"{storage.uri}/model"), False),
    "a deletion in progress": (lambda storage: storage.delete("model/recipe.json"), False),
    "another writing": (lambda storage: storage.put_bytes("model/recipe.json", b"{ }"), False),
}


@pytest.mark.s3
@pytest.mark.parametrize("is_gone", [True, False])
@pytest.mark.parametrize("what", CHANGES)
def test_outputs_of_a_trainjob_that_is_gone_or_out_of_reach_count_only_if_they_have_not_changed(
    stub, s3, tmp_path, monkeypatch, what, is_gone
):
    root = f"{s3}/root"
    stub.on_create, stub.statuses = put_outputs, [status("Complete")]
    monkeypatch.setattr(api, "PATIENCE", retry.Backoff(total=0.01, first=0.01))
    change, do_count = CHANGES[what]

    def clean_up() -> None:
        if is_gone:
            stub.jobs.clear()
        else:
            stub.is_away = lambda: True
        change(open_storage(scratch(stub, root)))

    while_fetching(monkeypatch, clean_up)
    assert main(words(root, tmp_path)) == (0 if do_count else 1)
    told = messages.TERMINATION_LOG.read_text()
    assert told == ("" if do_count else changed(stub, root))


@pytest.mark.s3
def test_outputs_that_are_deleted_before_they_are_listed_do_not_count(
    stub, s3, tmp_path, monkeypatch
):
    root = f"{s3}/root"
    stub.on_create, stub.statuses = put_outputs, [status("Complete")]
    run = on_nodes._run_to_its_end

    def run_and_clean_up(*given, **more):
        end = run(*given, **more)
        stub.jobs.clear()
        open_storage(scratch(stub, root)).delete("losses")
        return end

    monkeypatch.setattr(on_nodes, "_run_to_its_end", run_and_clean_up)
    assert main(words(root, tmp_path)) == 1
    assert messages.TERMINATION_LOG.read_text() == changed(stub, root)


def changed(stub: TrainerStub, root: str) -> str:
    where = scratch(stub, root)
    return f"train_san: outputs at {where} are missing, or changed while they were fetched"
