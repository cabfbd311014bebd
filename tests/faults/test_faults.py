"""Some of each kind of hostile input; `make faults` tries many more."""

import pytest

from tests.faults import campaign, cases

FEW = {"damaged videos": 45, "cut files": 6, "lists and names": 3, "killed at the start": 4}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Validating sparse tensor:UserWarning")
@pytest.mark.parametrize("kind", cases.KINDS)
def test_hostile_input_is_refused_in_words_or_read(kind, tmp_path):
    found = campaign.attempt(kind, FEW.get(kind, 1), tmp_path)
    assert found and [(name, wrong) for name, wrong in found if wrong] == []
