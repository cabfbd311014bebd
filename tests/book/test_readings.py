"""What is said about numbers is true, no stronger than their intervals, and reads as English."""

import pandas as pd
import pytest
import torch

from avnb import book as report
from avnb.book import wording
from avnb.book.comparisons import ranking
from avnb.config import Evaluation
from avnb.data.manifest import Manifest
from avnb.evaluation import results
from avnb.evaluation.probe_choices import CHOICES
from avnb.evaluation.retrieval import PROJECTED, THESIS
from tests.book.test_tables import frame, row


def test_numbers_and_lists_read_as_english():
    assert wording.listed(["a"]) == "a" and wording.listed("abc") == "a, b and c"
    assert wording.listed(["a", "b"], "or") == "a or b"
    assert [wording.counted(n, "class", "classes") for n in (0, 1, 13)] == [
        "no classes", "one class", "13 classes",
    ]  # fmt: skip
    assert [wording.rounded(v) for v in (0, 0.256, 3.14159, 41.7, -9.97)] == [
        "0", "0.26", "3.1", "42", "-10",
    ]  # fmt: skip
    assert wording.span([2.04, 1.5]) == "1.5 to 2.0" and wording.span([41.7, 42.1]) == "42"
    assert wording.sentence("xID leads") == "xID leads."
    assert wording.sentence("no method does.") == "No method does."
    assert wording.title_in_text("mine_v2.py:A") == "`mine_v2.py:A`"


def said(*values, base="random"):
    """The ranking of methods, each a name and a value whose interval is 5 to both sides."""
    rows = [vars(row(method, value, value - 5, value + 5)) for method, value in values]
    return " ".join(map(wording.sentence, ranking(rows, base))).replace("\xa0", " ")


UNTRAINED = "an untrained encoder (30 %; guessing gives 8.3 %)"


@pytest.mark.parametrize(
    "values, text",
    [
        ([("xid", 60)], f"xID (60 %) does better than {UNTRAINED}."),
        ([("xid", 32)], f"xID (32 %) cannot be told apart from {UNTRAINED}."),
        ([("xid", 10)], f"xID (10 %) does worse than {UNTRAINED}."),
        ([("mine", 60), ("xid", 62)], "xID (62 %) and `mine` (60 %) do better than"
         f" {UNTRAINED}; the two cannot be told apart."),
        ([("mine", 50), ("xid", 70)], f"xID (70 %) and `mine` (50 %) do better than {UNTRAINED}; "
         "xID leads `mine` by 20 points."),
        ([("mine", 28), ("xid", 34)], f"No method can be told apart from {UNTRAINED}: the others "
         "reach 28 to 34 %."),
        ([("supervised", 60), ("mine", 64), ("xid", 80), ("vicreg_v", 75)],
         "xID (80 %), VICReg-V (75 %), `mine` (64 %) and Supervised (60 %) do better than "
         f"{UNTRAINED}; xID leads `mine` and Supervised by 16 points or more, but cannot be told "
         "apart from VICReg-V."),
        ([("xid", 42), ("mine", 38), ("vicreg_v", 31), ("vicreg_av", 10)],
         f"xID (42 %) does better than {UNTRAINED}. VICReg-AV (10 %) does worse. VICReg-V shows no "
         "clear difference from the untrained encoder, and `mine` can be told apart neither from "
         "the untrained encoder nor from xID."),
    ],
)  # fmt: skip
def test_a_claim_is_made_only_where_intervals_are_apart(values, text):
    assert said(("random", 30), *values) == text


def test_without_a_base_or_alone_the_highest_is_given():
    assert said(("xid", 60)) == "xID reaches 60 %, where guessing gives 8.3 %."
    assert said(("random", 30)) == "An untrained encoder reaches 30 %, where guessing gives 8.3 %."
    text = said(("xid", 60), ("vicreg_v", 58), ("vicreg_av", 59))
    assert text.endswith("; none of the others can be told apart from xID.")


def test_accuracy_is_that_of_whole_videos_and_says_where_single_clips_differ():
    video = [row("random", 30, 25, 35, level="video"), row("xid", 38, 33, 43, level="video")]
    clip = [row("random", 30, 28, 32), row("xid", 38, 36, 40)]
    text = report.describe_accuracy(frame(*video, *clip), results.published())
    assert "xID (38\xa0%) cannot be told apart from an untrained encoder" in text
    assert "Clip by clip, xID does better than an untrained encoder." in text
    assert text.endswith(
        "on the real UCF-101, xID (51\xa0%) is highest, followed by VICReg-V (49\xa0%)."
    )
    own = frame(*video, *(row(m, 30, 20, 40) for m in ("random", "xid"))).assign(dataset="mine")
    text = report.describe_accuracy(own, results.published())
    assert "Clip by clip" not in text and "thesis" not in text


CLASSES = ("Jump", "Run", "Swim")


def test_classes_that_gain_and_lose_are_counted_and_one_is_named_where_it_has_videos():
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    one, other = torch.tensor([0, 0, 1, 2, 1, 1]), torch.tensor([1, 1, 1, 2, 2, 1])
    table = report.gains_table(one, other, label, [*CLASSES, "empty"])
    assert table["gain"].to_dict() == {"Jump": 100, "Run": 0, "Swim": -50}
    text = report.describe_gains(table, "xid")
    assert text == (
        "xID recognises one of three classes more often than Random does, and one less often."
    )
    text = report.describe_gains(table.assign(n=5), "xid")
    assert text.endswith("; `Jump` gains most, 100 points over 5 videos.")
    assert "add `random`" in report.describe_gains(table, "random")


def test_a_mistake_is_named_where_it_is_frequent_and_its_class_has_videos():
    counts = torch.tensor([[2, 0, 0], [0, 1, 3], [1, 0, 2]])
    text = report.describe_confusion(counts, CLASSES, "xid")
    assert text == "Of three classes, xID gets one wholly right."
    text = report.describe_confusion(2 * counts, CLASSES, "xid")
    assert text.endswith("to take `Run` for `Swim`, in six of eight videos.")
    nothing = report.describe_confusion(torch.tensor([[0, 1], [0, 1]]), CLASSES[:2], "xid")
    assert "Of two classes, xID gets one wholly right and one wholly wrong." in nothing


def test_choices_are_compared_by_intervals():
    titles = [Evaluation().changed(**c).protocol_title for c in CHOICES.values()]

    def rows(*values):
        both = [
            row("xid", v, v - 3, v + 3, protocol=p, level="video")
            for v, p in zip(values, titles, strict=True)
        ]
        return report.describe_choices(frame(*both)).replace("\xa0", " ")

    text = rows(30, 34, 41, 31, 29, 45)
    assert "Moving BatchNorm (to 41 %) and author (to 45 %) raise the accuracy of xID" in text
    assert "No choice" not in text
    assert "No choice changes the accuracy of xID" in rows(30, 31, 32, 31, 29, 33)
    assert "(to 20 %) lowers the accuracy of xID (30 %)" in rows(30, 31, 32, 31, 20, 33)


def test_what_became_of_vicregs_terms_is_read_from_the_log():
    def course(covariance, invariance=(0.3, 0.2, 0.1, 0.05)):
        terms = zip(covariance, invariance, (0.8, 0.7, 0.6, 0.5), strict=False)
        names = ["covariance", "invariance", "variance"]
        return report.covariance_course(pd.DataFrame(terms, columns=names))

    assert course((3, 1, 2, 3)) == "rises after epoch 2 while both others fall"
    assert "the others do not both fall" in course((3, 1, 2, 3), (0.3, 0.1, 0.2, 0.3))
    assert course((3, 2, 1, 0)) == "falls to the end" and "too few" in course((3, 1))
    assert course((0, 1, 2, 3)).startswith("rises after epoch 1 while")


def test_every_method_is_read_by_its_own_measure_and_a_collapse_is_said_aloud():
    xid = {
        "epoch": [0, 1, 1], "loss": 1.0, "cosine_own": 0.99, "cosine_other": 0.98,
        "video_spread": 0.01, "video_std": 0.001, "video_rank": 1.2,
    }  # fmt: skip
    views = {"epoch": [0, 1], "loss": 1.0, "invariance": [0.3, 0.1], "variance": 0.7}
    logs = {"random": [], "xid": xid, "vicreg_v": {**views, "covariance": 1.0}}
    logs = {method: pd.DataFrame(log) for method, log in logs.items()}
    text = report.describe_pretraining(logs)
    cosines = "0.99 with the row of its own video and 0.98 with those of others under xID"
    assert f"a mean cosine of {cosines}" in text
    assert "goes from 0.30 to 0.10 under VICReg-V" in text and "VICReg-V vary less" in text
    assert "xID: collapse after epoch 2" in text
    table = report.learnt_table(logs)
    assert table.index.unique(0).tolist() == ["xID", "VICReg-V"]
    assert table.loc[("VICReg-V", "invariance"), ["first epoch", "last epoch"]].tolist() == [
        "0.30", "0.10",
    ]  # fmt: skip
    assert table["course"].map(bool).sum() == 1 and table["course"].str.len().max() < 50
    del logs["xid"]
    assert "No embeddings collapsed." in report.describe_pretraining(logs)


def test_an_untrained_method_has_no_curves_and_says_so():
    logs = {"random": pd.DataFrame([])}
    assert "Nothing was trained" in report.describe_pretraining(logs)
    assert report.learnt_table(logs).empty
    assert report.plot_curves(logs["random"]).axes[0].get_title() == "not trained: no curves"


def test_a_data_set_is_described_by_what_its_tables_hold(manifests):
    manifest = Manifest.load(manifests / "vggsound")
    rows = pd.read_csv(manifests / "vggsound" / "manifest.csv", dtype={"id": str})
    rows.loc[0, "seconds"] = 0.5
    lost = pd.DataFrame({"path": ["a.mp4", "b.mp4"], "what": "listed, but not there"})
    ledger = pd.read_csv(manifests / "vggsound" / "ledger.csv", dtype=str)
    text = report.describe_data(manifest, rows, lost, ledger)
    assert f"{len(manifest)} of {manifest.listed} listed videos can be used (two files mis" in text
    assert "not decodable to the end" in text and len(ledger) > 0
    assert "the shortest lasts 0.5 s" in text and "shorter than the one second of a clip" in text
    silent = 100 * (1 - len(manifest.with_audio()) / len(manifest))
    assert f"{100 - silent:.0f}\xa0% have an audio stream" in text and silent > 0
    table = report.extents_table(rows)
    assert table.loc["all", "videos"] == len(manifest)
    assert table.loc["all", "shortest, s"] == 0.5


def test_localisation_is_held_against_chance_and_the_middle():
    def point(method, value):
        return row(method, value, value - 5, value + 5, task="localisation", level="", chance=16)

    rows = frame(*(point(m, v) for m, v in (("xid", 40), ("random", 3), ("centre", 90))))
    assert report.describe_localisation(rows).replace("\xa0", " ") == (
        "xID (40 %) points to the object more often than chance (16 %), Random (3.0 %) less "
        "often. No method does better than always pointing to the middle (90 %)."
    )
    rows = frame(*(point(m, v) for m, v in (("xid", 60), ("mine", 17), ("centre", 30))))
    text = report.describe_localisation(rows)
    assert "`mine` (17\xa0%) no more often" in text and "Only xID does better than always" in text


def test_retrieval_is_read_within_and_across_modalities():
    within = [
        row(m, v, v - 5, v + 5, metric="R@1", level=level, space=THESIS)
        for level in ("v->v", "a->a")
        for m, v in (("random", 30), ("xid", 60))
    ]
    across = [
        row("xid", p, None, None, metric="p of R@5", level=level, space=space)
        for space, p in ((THESIS, 0.5), (PROJECTED, 0.001))
        for level in ("v->a", "a->v")
    ]
    text = report.describe_retrieval(frame(*within, *across))
    assert text.startswith("From video to video, xID (60") and "From audio to audio, xID" in text
    assert text.endswith(
        "Across modalities, by the encoders' own features, no method finds the right class more "
        "often than with shuffled classes; after the heads of pre-training, xID (both ways) does."
    )
    assert report.describe_cross_modal(frame(*within)) == ""
