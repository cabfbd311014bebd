"""The command line: what it says, and what a person got wrong."""

import re

import pytest

from avnb.__main__ import main


def test_an_unknown_data_set_is_told_with_the_nearest_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path))
    assert main(["prepare", "ucf102", "."]) == 1
    assert "did you mean 'ucf101'" in capsys.readouterr().err


@pytest.mark.slow
def test_prepare_says_what_can_be_used_and_where_the_rest_is_listed(
    world, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("AVNB_BUILD", str(tmp_path))
    assert main(["prepare", "vggsound", str(world / "vggsound"), "--profile", "smoke"]) == 0
    said = re.search(
        r"(\d+) videos of \d+ classes, (\d+) without audio\n(\d+) cannot be used: (\S+)",
        capsys.readouterr().out,
    )
    usable, silent, rejected = (int(count) for count in said.groups()[:3])
    assert usable > silent > 0 and rejected > 0 and said[4].endswith("rejected.csv")
