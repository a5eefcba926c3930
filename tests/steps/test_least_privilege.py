"""The actions of S3 that docker/README.md lists: each step needs them, and no other."""

import re
from pathlib import Path

import pytest

from components.__main__ import main
from components.storage.places import open_storage
from san_core.images.pixels import encode_png
from tests.servers.tampering_proxy import without
from tests.tiny import step_command, with_flags, with_outputs_in

ACTIONS = {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
README = Path(__file__).parents[2] / "docker" / "README.md"
STEPS = ("prepare_reid", "generate_textures", "seal_textures", "train_san")


def listed_actions(step):
    """The permissions in the table, without those of options."""
    rows = re.findall(r"^\| ([\w, ]+) \| .+ \| (s3:.+) \|$", README.read_text("utf-8"), re.M)
    told = [actions.partition(";")[0] for steps, actions in rows if step in steps.split(", ")]
    return set(re.findall(r"s3:\w+", " ".join(told)))


@pytest.fixture
def command(tiny, tmp_path, s3, tampering_proxy, picture):
    """The words of a step on places in the bucket, where all that comes before it has been done."""

    def make(step):
        line = with_outputs_in(step_command(step, tiny), tmp_path)
        if step == "prepare_reid":
            open_storage(s3).put_bytes("source/a.png", encode_png(picture(0)))
            reid = str(tmp_path / "reid")
            return [step, "--reid", reid, "--dataset", "images", "--source", f"{s3}/source"]
        if step == "train_san":
            assert main(make("seal_textures")) == 0
            sealed = str(tmp_path / "textures")
            return with_flags(line, textures=sealed, checkpoint=f"{s3}/state")
        if step == "seal_textures":
            assert main(make("generate_textures")) == 0
        return with_flags(line, destination=f"{s3}/kept")

    return make


@pytest.mark.parametrize("step", STEPS)
def test_step_needs_the_listed_actions_and_no_other(command, tampering_proxy, capsys, step):
    words, listed = command(step), listed_actions(step)
    for action in sorted(listed):
        tampering_proxy.deny = without(action, *(ACTIONS - listed))
        capsys.readouterr()
        assert main(words) == 1
        line = capsys.readouterr().err.splitlines()[-1]
        assert re.search(rf"do they allow .*{action}", line)
    tampering_proxy.deny = without(*(ACTIONS - listed))
    assert main(words) == 0
