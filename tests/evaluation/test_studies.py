import json
import shutil

import pandas as pd
import pytest

from avnb.data.prepare import load_dataset
from avnb.data.synthetic.scenes import MOTIONS, THINGS
from avnb.data.synthetic.world import UCF101, World, world_id
from avnb.evaluation import results, studies
from avnb.profiles import PROFILES, Workspace


@pytest.fixture(scope="module")
def work(world, tmp_path_factory):
    """A workspace whose world is made already."""
    folder = tmp_path_factory.mktemp("work")
    values = World.from_flat(**PROFILES["smoke"]["world"])
    shutil.copytree(world, folder / f"world-{world_id(values)}")
    return Workspace("smoke", folder, PROFILES["smoke"])


def test_every_variant_of_every_study_is_stored_once():
    rows = studies.stored()
    for name, variants in studies.VARIANTS.groupby("study"):
        accuracy = results.select(rows, task="probe", level="video", metric="top1")
        found = studies.of_study(accuracy, name)
        same = studies.VARIANT
        assert found[same].values.tolist() == variants[same].values.tolist(), name
    assert set(rows["source"]) == {"this book"} and set(rows["profile"]) == {"study"}
    noise = studies.of_study(rows, "noise")
    assert set(noise["dubbed_fraction"].dropna()) == {0, 0.25, 0.5, 0.8}


def test_untrained_encoders_are_near_chance_and_every_method_is_above_them():
    """What the world is made for; by the stored rows, over all seeds."""
    found = studies.of_study(studies.stored(), "methods")
    measures = {
        "video": ("supervised", "vicreg_av", "vicreg_v", "xid"),
        "v->v": ("vicreg_av", "vicreg_v", "xid"),
    }
    measures["a->a"] = ("vicreg_av", "xid")
    for level, methods in measures.items():
        rows = found[(found["level"] == level) & found["metric"].isin(["top1", "R@1"])]
        means = rows.groupby("method")[["value", "low", "high", "chance"]].mean()
        assert means.loc["random", "value"] < means.loc["random", "chance"] + 10
        for method in methods:
            assert means.loc[method, "low"] > means.loc["random", "high"], (level, method)


def test_variants_differ_from_a_plain_run_in_values_that_exist(work):
    for method, space in studies.VARIANTS[["method", "space"]].drop_duplicates().values:
        values = json.loads(space)
        for name in {"world_seed", "dubbed_fraction"} & values.keys():
            del values[name]
        changed = work.pretraining(method=method, **values)
        assert (changed != work.pretraining(method=method)) == bool(values), space


@pytest.mark.slow
def test_a_study_is_measured_appended_and_not_made_again(work, monkeypatch):
    variants = [("random", "{}", 0), ("random", '{"residual_scale": 1.0}', 0), ("random", "{}", 1)]
    table = pd.DataFrame(variants, columns=studies.VARIANT).assign(study="tried")
    monkeypatch.setattr(studies, "VARIANTS", table)
    monkeypatch.setattr(studies, "STUDIES", ["tried"])
    out = work.folder / "rows.jsonl"
    rows = studies.measure(work, ["tried"], out)
    text = out.read_text()
    assert studies.measure(work, ["tried"], out).equals(rows) and out.read_text() == text
    found = studies.of_study(rows, "tried")
    assert set(found["residual_scale"].fillna(-1)) == {-1, 1.0}
    assert found["run"].nunique() == 3 and set(found["seed"]) == {0, 1}
    # a plain run is asked more
    is_plain = (rows["space"] == "{}") & (rows["seed"] == 0)
    plain = rows[is_plain]
    assert set(plain["task"]) == {"probe", "retrieval", "batch norm", "read-out"}
    assert set(rows[~is_plain]["task"]) == {"probe", "retrieval"}
    seen = plain[plain["level"].isin(["seen", "unseen"])]
    whole = plain[(plain["task"] == "probe") & (plain["level"] == "video")].iloc[0]
    right = (seen["value"] * seen["n"]).sum() / 100
    assert right == pytest.approx(whole["value"] * whole["n"] / 100)
    moved = plain[(plain["task"] == "batch norm") & (plain["level"] == "train")].iloc[0]
    assert moved["protocol"] == "thesis, probe_clips fresh, probe_batch_norm train"
    shape = plain[plain["metric"] == "shape"].set_index("level")
    assert shape.loc["video", "n"] > shape.loc["audio", "n"]  # some videos have no sound
    assert shape.loc["video", "chance"] == pytest.approx(100 / len(THINGS))


def test_causes_are_those_that_made_the_videos(work):
    target = load_dataset(work, "ucf101")
    for videos in (target, target.with_audio()):
        known = studies.known_causes(videos)
        assert set(known) == {"shape", "motion", "size", "place", "colour", "pitch", "noise"}
        names = [UCF101[videos.classes[label]] for label in videos.split("test").labels]
        assert [sorted(THINGS)[i] for i in known["shape"]["test"]] == [thing for thing, _ in names]
        assert set(known["motion"]["train"].tolist()) <= set(range(len(MOTIONS)))
        thirds = pd.Series(known["pitch"]["train"].numpy()).value_counts()
        assert len(thirds) == 3 and thirds.max() - thirds.min() <= 1


def test_an_unknown_study_is_named_before_anything_is_made(tmp_path):
    work = Workspace("smoke", tmp_path / "work", PROFILES["smoke"])
    with pytest.raises(ValueError, match="study 'nose' is unknown; did you mean 'noise'"):
        studies.measure(work, ["methods", "nose"], tmp_path / "rows.jsonl")
    assert not list(tmp_path.iterdir())
