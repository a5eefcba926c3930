"""How data sets are named."""

import pytest

from san_core.data.readers.sources import DATASET_FORMATS, list_dataset, parse_dataset_name
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
        ("msmt17:val,val", "option 'val' of data set msmt17 is named twice"),
    ],
)
def test_a_wrong_name_is_told_what_there_is(text, message):
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
def test_a_name_in_capitals_is_no_data_set_and_the_meant_one_is_told(wrong, meant):
    with pytest.raises(ValueError, match=f"no data set '{wrong}'; .*; did you mean '{meant}'"):
        parse_dataset_name(wrong)
