import json

import numpy as np
import pytest

from avnb.book import studies
from avnb.evaluation.results import Row, frame


def rows(*measured, study=""):
    """Of (method, changes, value), with intervals of 5 points to each side; seeds are counted."""
    alike = [(method, changes) for method, changes, _ in measured]
    made = [
        Row(
            task="probe", metric="top1", level="video", method=method, dataset="ucf101",
            space=json.dumps(changes), value=value, low=value - 5, high=value + 5, n=100,
            chance=8.3, seed=alike[:i].count((method, changes)),
        )
        for i, (method, changes, value) in enumerate(measured)
    ]  # fmt: skip
    table = frame(vars(row) for row in made)
    changes = [json.loads(space) for space in table["space"]]
    table["dubbed_fraction"] = [c.get("dubbed_fraction") for c in changes]
    return table.assign(
        title=[studies.variant_title(row, study) for row in table.to_dict("records")]
    )


@pytest.mark.parametrize(
    "value, said", [(60, "supported"), (33, "left open"), (10, "contradicted")]
)
def test_intervals_decide_whether_rince_is_more_robust(value, said):
    noisy = {"dubbed_fraction": 0.5}
    table = rows(
        ("xid", noisy, value),
        ("xid", noisy | {"xid_loss": "info_nce"}, 30),
        ("vicreg_av", noisy, 30),
        ("vicreg_av", noisy | {"huber_delta": 0.5}, 30),
        study="noise",
    )
    text = studies.describe_wrong_pairs(table)
    first = text.split(". ")[0]
    share = f"50\N{NO-BREAK SPACE}% ({value} against 30)"
    assert first.endswith(f"InfoNCE: by share of wrong sounds, **{said}** at {share}")
    assert "with Huber's loss: by share of wrong sounds, **left open** at" in text


def test_an_interval_of_one_run_holds_what_other_seeds_may_change():
    plain = [("xid", {}, value) for value in (30, 40, 50)] + [("vicreg_v", {}, 40)] * 3
    seeds = rows(*plain, ("random", {}, 10))
    (found,) = studies.with_seeds(rows(("xid", {"lam": 0.1}, 60)), seeds).to_dict("records")
    # Variances 100 and 0 of two methods: Student's t of four degrees times the root of 50.
    assert 60 - found["low"] == pytest.approx(np.hypot(5, 2.776 * 50**0.5), abs=0.01)
    assert found["high"] == pytest.approx(60 + 20.25, abs=0.01)
    (untrained,) = studies.with_seeds(rows(("random", {}, 10)), seeds).to_dict("records")
    assert (untrained["low"], untrained["high"]) == (5, 15)  # one seed tells nothing


def test_remedies_are_held_against_plain_vicreg_av():
    table = rows(
        ("vicreg_v", {}, 50),
        ("vicreg_av", {}, 30),
        ("vicreg_av", {"huber_delta": 0.5}, 45),
        ("vicreg_av", {"audio_rest_prob": 0.5}, 15),
    )
    text = studies.describe_audio_path(table)
    assert [word for word in text.split("**") if word in studies.VERDICTS.values()] == [
        "supported",
        "supported",
        "contradicted",
    ]


def test_variants_are_grouped_by_how_they_stand_to_the_base():
    table = rows(
        ("xid", {}, 40), ("xid", {"lam": 0.1}, 20), ("xid", {"negatives": 512}, 60),
        ("xid", {"temperature": 0.2}, 42),
    )  # fmt: skip
    assert studies.describe_variants(table) == (
        "xID (40\N{NO-BREAK SPACE}%) does better with 512 negatives (60) and worse with λ = 0.1 "
        "(20). No clear difference to xID (40\N{NO-BREAK SPACE}%) shows with temperature 0.2 (42)."
    )


def split(method, seen, unseen, n):
    common = {"task": "probe", "metric": "top1", "method": method, "dataset": "ucf101", "n": n}
    return [
        Row(level=level, value=value, low=0, high=100, **common)
        for level, value in (("seen", seen), ("unseen", unseen))
    ]


@pytest.mark.parametrize(
    "seen, unseen, n, said",
    [(40, 30, 1000, "supported"), (40, 30, 20, "left open"), (75, 10, 1000, "contradicted")],
)
def test_the_lead_on_seen_classes_is_compared_with_that_on_unseen_ones(seen, unseen, n, said):
    made = split("supervised", 80, 40, n) + split("xid", seen, unseen, n)
    text = studies.describe_seen(frame(vars(row) for row in made), ["xid"])
    assert f"is **{said}** against xID." in text


def test_the_stored_studies_are_said_in_whole_sentences():
    stored = studies.studies.stored()
    said = [
        studies.describe_wrong_pairs(studies.study_rows("noise", stored)),
        studies.describe_audio_path(studies.study_rows("audio path", stored)),
        studies.describe_variants(studies.study_rows("rince", stored)),
        studies.describe_study_rows(stored),
    ]
    for text in said:
        assert text[0].isupper() or text.startswith("xID") or text[0].isdigit()
        assert text.endswith(".") and "nan" not in text
