"""The command that shows recipes."""

import dataclasses
import sys

import pytest

from components.__main__ import main
from components.command.recipes import field_meanings
from san_core.recipe import Recipe
from san_core.recipes import RECIPES


def test_every_recipe_is_listed_with_what_it_trains(monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", "/env/bin/python")
    assert main(["recipes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(RECIPES)]] == list(RECIPES)
    assert lines[-1].startswith("/env/bin/python -m components recipes NAME shows ")
    (market,) = (line for line in lines if line.startswith("market1501 "))
    assert "SAN (needs textures): resnet50, from ImageNet weights, images 256x128" in market


def test_one_recipe_is_shown_field_by_field_as_overrides_are_spelt(capsys):
    assert main(["recipes", "cuhk03"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(dataclasses.fields(Recipe))
    assert any(line.startswith("milestones=60,100,140,180,220,260,300 ") for line in lines)
    assert "skips=true                    add encoder maps into the decoder" in "\n".join(lines)


def test_meanings_are_the_comments_of_the_class():
    found = field_meanings()
    assert list(found) == [field.name for field in dataclasses.fields(Recipe)]
    assert found["epochs"] == "passes over the training set, warm-up included"
    assert found["arch"] == "SA-Enc; the paper's is resnet50"
    assert found["pit_every"].startswith("n: after every n ReID batches")
    explained = sum(bool(text) for text in found.values())
    assert explained >= len(found) - 2  # optimizer and schedule say it by their names


@pytest.mark.parametrize(("words", "status"), [(["none"], 2), (["--help"], 0), (["a", "b"], 2)])
def test_wrong_words_are_answered_on_stderr(words, status, capsys):
    assert main(["recipes", *words]) == status
    said = capsys.readouterr()
    assert said.out == ""
    assert "recipes" in said.err
