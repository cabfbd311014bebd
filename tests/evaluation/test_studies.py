import json

import pandas as pd

from avnb.evaluation import results
from avnb.profiles import Workspace
from tests.conftest import ROOT

FOLDER = ROOT / "avnb/evaluation"
VARIANTS = pd.read_csv(FOLDER / "studies.csv", sep=";", comment="#")
STORED = results.read(FOLDER / "studies.jsonl")
KEY = ["method", "space"]
TUNING = 100  # the first world to tune in


def test_every_variant_is_stored_once_in_every_block_and_tuned_in_other_worlds():
    accuracy = results.select(STORED, task="probe", level="video", metric="top1")
    tuned = VARIANTS["study"] == "tuning"
    for seed, found in accuracy.groupby("seed"):
        wanted = VARIANTS[tuned == (seed >= TUNING)][KEY].drop_duplicates()
        assert sorted(found[KEY].values.tolist()) == sorted(wanted.values.tolist()), seed
    assert not set(STORED.loc[STORED["seed"] >= TUNING, "data"]) & set(
        STORED.loc[STORED["seed"] < TUNING, "data"]
    )
    assert set(STORED["source"]) == {"this book"} and set(STORED["profile"]) == {"study"}


def test_untrained_encoders_are_near_chance():
    found = results.select(STORED, method="random", task="probe", level="video")
    assert (found["value"] - found["chance"]).mean() < 10


def test_variants_differ_from_a_plain_run_in_values_that_exist():
    work = Workspace.open("study")
    for method, space in VARIANTS[KEY].drop_duplicates().values:
        values = json.loads(space)
        values.pop("dubbed_fraction", None)
        changed = work.pretraining(method=method, **values)
        assert (changed != work.pretraining(method=method)) == bool(values), space
