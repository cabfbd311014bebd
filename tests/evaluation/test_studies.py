import json

import pandas as pd

from avnb.evaluation import results
from avnb.profiles import Workspace
from tests.conftest import ROOT

FOLDER = ROOT / "avnb/evaluation"
VARIANTS = pd.read_csv(FOLDER / "studies.csv", sep=";", comment="#")
STORED = results.read(FOLDER / "studies.jsonl")
KEY = ["method", "space", "seed"]


def test_every_variant_of_every_study_is_stored_once():
    accuracy = results.select(STORED, task="probe", level="video", metric="top1")
    wanted = VARIANTS[KEY].drop_duplicates()
    assert sorted(accuracy[KEY].values.tolist()) == sorted(wanted.values.tolist())
    assert set(STORED["source"]) == {"this book"} and set(STORED["profile"]) == {"study"}


def test_untrained_encoders_are_near_chance_and_every_method_is_above_them():
    """What the world is made for; by the stored rows, over all seeds."""
    found = results.select(STORED, space="{}", metric=["top1", "R@1"])
    measures = {
        "video": ("supervised", "vicreg_av", "vicreg_v", "xid"),
        "v->v": ("vicreg_av", "vicreg_v", "xid"),
        "a->a": ("vicreg_av", "xid"),
    }
    for level, methods in measures.items():
        rows = results.select(found, level=level, task=["probe", "retrieval"])
        means = rows.groupby("method")[["value", "low", "high", "chance"]].mean()
        assert means.loc["random", "value"] < means.loc["random", "chance"] + 10
        for method in methods:
            assert means.loc[method, "low"] > means.loc["random", "high"], (level, method)


def test_variants_differ_from_a_plain_run_in_values_that_exist():
    work = Workspace.open("study")
    for method, space in VARIANTS[["method", "space"]].drop_duplicates().values:
        values = json.loads(space)
        for name in {"world_seed", "dubbed_fraction"} & values.keys():
            del values[name]
        changed = work.pretraining(method=method, **values)
        assert (changed != work.pretraining(method=method)) == bool(values), space
