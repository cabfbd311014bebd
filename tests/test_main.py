"""The command line: what it says, and what a person got wrong."""

import re

import pytest

from avnb.__main__ import main
from avnb.book import build


def test_what_a_person_got_wrong_is_one_message(monkeypatch, capsys, tmp_path):
    def refuse(path, out, given):
        raise build.BookError("04_rince.ipynb failed")

    monkeypatch.setattr(build, "run_notebook", refuse)
    assert main(["run", "notebooks/04_rince.ipynb", str(tmp_path / "out.ipynb")]) == 1
    assert capsys.readouterr().err == "error: 04_rince.ipynb failed\n"


def test_what_is_not_there_is_one_message(capsys, tmp_path):
    assert main(["run", str(tmp_path / "a.ipynb"), str(tmp_path / "out.ipynb")]) == 1
    assert "a.ipynb does not exist" in capsys.readouterr().err
    (tmp_path / "a.ipynb").write_text("{}")
    assert main(["run", str(tmp_path / "a.ipynb"), str(tmp_path / "out.ipynb")]) == 1
    assert "a.ipynb is not a notebook" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [["cook"], ["book", "--profile", "thesis"], ["prepare", "ucf102", "."]]
)
def test_an_unknown_choice_is_told_with_what_there_is(command, capsys):
    with pytest.raises(SystemExit):
        main(command)
    assert "invalid choice" in capsys.readouterr().err


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
