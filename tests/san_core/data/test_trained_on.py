"""The training people of a network, and test people among them."""

import pytest

from san_core.checked_json import check_shape
from san_core.data.trained_on import (
    DescribedSet,
    TrainedOn,
    count_seen,
    describe_training,
    merge_trainings,
    seen_in_words,
)
from san_core.images.shard import Record, sha256

FOLDERS = {"dataset": "folders:test=0.2", "made_by": "prepare_reid"}


def record(name, person="", pid=1, **fields):
    told = {"person": person} if person else {}
    return Record(name, pid, 0, "query", 0, 0, 1, sha256(name.encode()), {**told, **fields})


def trained(records, provenance=FOLDERS):
    return describe_training(records, DescribedSet("f" * 64, provenance))


def test_images_are_known_by_their_bytes_and_people_by_their_names():
    learned = trained([record("a", "ann"), record("b", "ann"), record("c", "bob")])
    asked = [record("a", "ann"), record("x", "bob"), record("y", "cid"), record("z", pid=0)]
    seen = count_seen(learned, asked, {"dataset": "csv"})
    assert seen == {"images": 1, "of_images": 4, "people": 2, "of_people": 3}
    assert seen_in_words(seen) == (
        "trained on 2 of the 3 identities (by their names) and 1 of the 4 images"
    )
    assert seen_in_words(count_seen(learned, [record("y", "cid")], FOLDERS)) == ""


def test_the_order_does_not_change_the_text():
    records = [record("a", "ann"), record("b", "bob")]
    told = trained(records)
    assert told == trained(records[::-1])
    assert told["data_sets"] == [{"name": "folders:test=0.2", "fingerprint": "f" * 64}]
    assert len(told["images"]) == len(told["people"]) == 24
    check_shape(told, TrainedOn, where="recipe.json")
    with pytest.raises(ValueError, match="hashes of 12 digits each"):
        check_shape({**told, "images": "abc"}, TrainedOn, where="recipe.json")


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ({"dataset": "market1501"}, {"dataset": "market1501:multi"}, True),
        ({"dataset": "market1501"}, {"dataset": "msmt17"}, False),
        (
            {"dataset": "synthetic", "spec": {"seed": 1}},
            {"dataset": "synthetic", "spec": {"seed": 2}},
            False,
        ),
        (
            {"dataset": "market1501"},
            {
                "dataset": "msmt17+market1501",
                "parts": [
                    {"name": "msmt17", "prefix": "msmt17/"},
                    {"name": "market1501", "prefix": "market1501/"},
                ],
            },
            True,
        ),
        ({"dataset": "file_names:like=duke"}, {"dataset": "file_names:test=0.2, like=duke"}, True),
        ({"dataset": "file_names:like=duke"}, {"dataset": "file_names:like=veri"}, False),
        (
            {"dataset": "file_names:pattern={pid}_*"},
            {"dataset": "file_names:pattern={pid}-*"},
            False,
        ),
    ],
)
def test_a_number_is_a_person_of_its_data_set_alone(one, other, is_same):
    learned = trained([record("a", pid=7)], one)
    seen = count_seen(learned, [record("market1501/b", pid=7)], other)
    assert seen["people"] == is_same


@pytest.mark.parametrize("dataset", ["folders", "csv:test=0.2", "file_names:pattern={pid}_*"])
def test_a_number_of_a_set_of_ones_own_is_known_by_its_images_too(dataset):
    provenance = {"dataset": dataset}
    learned = trained([record("a", pid=7), record("b", pid=8)], provenance)
    asked = [record("a", pid=7), record("c", pid=7), record("d", pid=8)]
    seen = count_seen(learned, asked, provenance)
    assert (seen["images"], seen["people"], seen["of_people"]) == (1, 1, 2)
    assert seen_in_words(count_seen(learned, asked[1:], provenance)) == ""


def test_a_model_that_starts_from_another_was_trained_on_its_people_too():
    first, second = trained([record("a", "ann")]), trained([record("b", "bob")], {"dataset": "csv"})
    both = merge_trainings([first, second, first])
    assert [one["name"] for one in both["data_sets"]] == ["folders:test=0.2", "csv"]
    seen = count_seen(both, [record("a", "ann"), record("b", "bob")], FOLDERS)
    assert (seen["images"], seen["people"]) == (2, 2)


def test_people_of_pairs_are_known_by_their_textures_within_their_seed():
    one, other = ({"made_by": "make_pit", "spec": {"seed": seed}} for seed in (1, 2))
    learned = trained([record("a", pid=0, texture="0000.png")], one)
    again = [record("b", pid=0, texture="0000.png")]
    assert count_seen(learned, again, one)["people"] == 1
    assert count_seen(learned, again, other)["people"] == 0
