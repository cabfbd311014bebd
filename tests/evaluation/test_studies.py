import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from avnb.data.synthetic.world import World
from avnb.evaluation import results
from avnb.profiles import Workspace
from tests.conftest import ROOT

FOLDER = ROOT / "avnb/evaluation"
VARIANTS = pd.read_csv(FOLDER / "studies.csv", sep=";", comment="#")
STORED = results.read(FOLDER / "studies.jsonl")
KEY = ["method", "space"]


def test_a_block_holds_whole_studies_each_run_once_and_none_serves_twice():
    accuracy = results.select(STORED, task="probe", level="video", metric="top1")
    variants = VARIANTS.groupby("study")[KEY].apply(lambda part: {*map(tuple, part.values)})
    for seed, found in accuracy.groupby("seed"):
        runs = [*map(tuple, found[KEY].values)]
        whole = [name for name, wanted in variants.items() if wanted <= {*runs}]
        asked = {"methods", "noise", "audio path"} if seed in results.REPORTED else {"tuning"}
        assert asked <= {*whole}, seed
        assert sorted(runs) == sorted(set().union(*variants[whole])), seed
    is_reported = STORED["seed"].isin(results.REPORTED)
    assert not {*STORED.loc[is_reported, "data"]} & {*STORED.loc[~is_reported, "data"]}
    assert set(STORED["source"]) == {"this book"} and set(STORED["profile"]) == {"study"}


def test_untrained_encoders_are_near_chance():
    found = results.select(STORED, method="random", task="probe", level="video")
    assert (found["value"] - found["chance"]).mean() < 10


def test_variants_are_made_of_values_that_exist():
    work = Workspace.open("study")
    for method, space in VARIANTS[KEY].drop_duplicates().values:
        values = {k: v for k, v in json.loads(space).items() if k not in World().flat()}
        flat = work.pretraining(method=method, **values).flat()
        assert flat == work.pretraining(method=method).flat() | values, space


@pytest.mark.slow
def test_a_study_is_made_in_a_notebook_and_not_made_again(tmp_path):
    study = [sys.executable, "-m", "avnb", "run", "notebooks/making_studies.ipynb"]
    study += [str(tmp_path / "study.ipynb"), "-p", "names", "audio path", "-p", "blocks", "6"]
    for _ in range(2):
        own = {**os.environ, "AVNB_BUILD": str(tmp_path)}
        subprocess.run(study, cwd=ROOT, env=own, check=True, capture_output=True)
        rows = (tmp_path / "smoke/studies.jsonl").read_text().splitlines()
        made = [json.loads(row) for row in rows]
        assert len({json.dumps({**row, "time": ""}) for row in made}) == len(made)
    assert len({row["run"] for row in made}) == 3
    plain = [row for row in made if row["space"] == "{}"]
    tasks = {row["task"].partition(" after")[0] for row in plain}
    assert tasks == {"probe", "retrieval", "half", "read-out", "finetune"}
    videos = {row["level"]: row["n"] for row in plain if row["task"] in ("probe", "half")}
    assert videos["seen"] + videos["unseen"] == videos["video"]
    probes = [row for row in made if row["task"] == "probe"]
    assert all(100 * results.outcomes(x).mean() == pytest.approx(x["value"]) for x in probes)
