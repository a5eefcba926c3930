"""How data sets are named."""

import pytest

from san_core.data.readers.sources import (
    DATASET_FORMATS,
    is_published,
    list_dataset,
    parse_dataset_and_target,
    parse_dataset_name,
    parse_placed_datasets,
)
from san_core.data.tree import open_tree


@pytest.mark.parametrize(
    ("text", "key", "options"),
    [
        ("synthetic", "synthetic", {}),
        ("market1501", "market1501", {}),
        ("market1501:multi,500k", "market1501", {"multi": "", "500k": ""}),
        (" cuhk03:detected, classic=7 ", "cuhk03", {"detected": "", "classic": "7"}),
        ("folders:test=0.5", "folders", {"test": "0.5"}),
        ("csv:", "csv", {}),
        ("market1501:all,500k", "market1501", {"all": "", "500k": ""}),
    ],
)
def test_a_name_is_a_key_and_options(text, key, options):
    assert parse_dataset_name(text) == (key, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no data set ''; there are synthetic, market1501, cuhk03, msmt17, partial, csv, fol"),
        ("market", "no data set 'market'; there are .*; did you mean 'market1501'"),
        ("market1501:mutli", "data set market1501 has no option 'mutli'; it takes multi, 500k"),
        ("images:x", "data set images has no option 'x'; it takes none"),
        ("synthetic:x", "data set synthetic has no option 'x'; it takes none"),
        ("cuhk03:classic", "option 'classic' of data set cuhk03: write classic=1 to classic=20"),
        ("cuhk03:classic=", "option 'classic=' of data set cuhk03: write classic=1"),
        ("cuhk03:detected=1", "option 'detected=1' of data set cuhk03: write detected, without a"),
        ("msmt17:val,val", "option 'val' of data set msmt17 is given twice"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(text, message):
    with pytest.raises(ValueError, match=message):
        parse_dataset_name(text)


def test_every_option_says_how_it_is_written():
    for source in DATASET_FORMATS.values():
        assert source.description
        for name, text in source.options.items():
            assert text
            assert "=" not in name
            if text.startswith(f"{name}="):
                assert ":" in text


@pytest.mark.parametrize("key", sorted(DATASET_FORMATS.keys() - {"csv"}))
def test_only_a_table_is_read_from_a_file_that_is_no_archive(tmp_path, key):
    (tmp_path / "list.txt").write_text("")
    with (
        open_tree(tmp_path / "list.txt") as tree,
        pytest.raises(ValueError, match=r"list.txt is neither a folder nor an archive"),
    ):
        list_dataset(parse_dataset_name(key), tree)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("MSMT17", "msmt17"), ("Market-1501", "market1501"), ("Synthetic", "synthetic")],
)
def test_a_name_in_capitals_is_refused_with_the_right_one(wrong, meant):
    with pytest.raises(ValueError, match=f"no data set '{wrong}'; .*; did you mean '{meant}'"):
        parse_dataset_name(wrong)


def test_several_names_are_joined_by_plus_and_their_places_follow_in_one_word():
    found = parse_placed_datasets(
        "market1501 + synthetic + cuhk03:labeled", "s3://b/market /my%20sets/cuhk03"
    )
    assert [(one.text, one.name.key, one.place) for one in found] == [
        ("market1501", "market1501", "s3://b/market"),
        ("synthetic", "synthetic", ""),
        ("cuhk03:labeled", "cuhk03", "/my sets/cuhk03"),
    ]
    assert found[2].name.options == {"labeled": ""}


def test_the_place_of_a_single_data_set_is_taken_as_it_is():
    (one,) = parse_placed_datasets("market1501", "/my sets/100%20")
    assert one.place == "/my sets/100%20"


def test_missing_places_are_empty():
    assert [one.place for one in parse_placed_datasets("market1501+msmt17", "")] == ["", ""]


@pytest.mark.parametrize(
    ("names", "places", "message"),
    [
        (
            "market1501+msmt17",
            "/a b/c /d",
            r"target_source has 3 places, and target names 2 data sets .*market1501, msmt17.*%20",
        ),
        ("market1501+synthetic", "/a /b", r"has 2 places, and target names 1 data sets"),
        ("synthetic", "/a", r"target_source is /a, but target is synthetic, which is rendered"),
        ("folders+folders", "/a /a", "target names folders twice, with the same place"),
        ("market1501+", "/a", "no data set ''"),
        ("market1501+cuhk3", "/a /b", "no data set 'cuhk3'.*did you mean 'cuhk03'"),
    ],
)
def test_several_data_sets_that_do_not_fit_their_places_are_refused(names, places, message):
    with pytest.raises(ValueError, match=message):
        parse_placed_datasets(names, places, role="target", place_role="target_source")


@pytest.mark.parametrize("place", ["/data/c++/split.csv", "/data/a+b.csv"])
def test_a_plus_in_the_place_of_a_split_file_gets_the_right_syntax(place):
    with pytest.raises(
        ValueError,
        match=r"write a \+ as %2B in a URI: "
        r"split=file:///data/c%2B%2B/spl",
    ):
        parse_placed_datasets(f"folders:split={place}", "/a")


def test_a_misspelt_name_after_a_split_file_is_not_taken_for_a_part_of_its_place():
    with pytest.raises(ValueError, match=r"no data set 'marke'.*did you mean 'market1501'\?$"):
        parse_placed_datasets("folders:split=a.csv + marke", "/a /b")


def test_two_folders_of_one_kind_are_two_data_sets():
    assert [one.place for one in parse_placed_datasets("folders+folders", "/a /b")] == ["/a", "/b"]


@pytest.mark.parametrize(
    ("dataset", "target", "message"),
    [
        (
            "market1501+images",
            "",
            "dataset images cannot be used for training: it has no identities",
        ),
        ("synthetic+csv", "msmt17+synthetic", "dataset and target are both synthetic"),
        ("cuhk03:labeled+cuhk03:detected", "", "dataset names cuhk03 2 times: the same identities"),
        (
            "csv",
            "msmt17:all",
            "target msmt17:all would be used for training as a whole: leave option all",
        ),
        (
            "csv",
            "msmt17+images",
            "target images has no identities, so it cannot be used for testing",
        ),
    ],
)
def test_sets_that_cannot_be_learned_or_tested_together_are_refused(dataset, target, message):
    with pytest.raises(ValueError, match=message):
        parse_dataset_and_target(dataset, target)


def test_several_sets_of_files_with_names_of_one_kind_may_be_learned():
    learned = parse_dataset_and_target("file_names:like=duke+file_names:like=veri", "").learned
    assert [one.name.options["like"] for one in learned] == ["duke", "veri"]


def test_a_set_with_names_of_a_pattern_of_ones_own_is_not_published():
    assert is_published(parse_dataset_name("file_names:like=duke"))
    assert not is_published(parse_dataset_name("file_names:pattern={pid}_*"))
    assert not is_published(parse_dataset_name("synthetic"))
