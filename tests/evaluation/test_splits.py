"""Few-shot draws and class splits: nested, the same everywhere, and files."""

import itertools
import random
from collections import Counter

import pytest

from avnb.evaluation import concepts, splits, text_encoders

LABELS = ["run"] * 70 + ["YoYo"] * 3 + ["brush_hair"] * 41
IDS = [f"video-{i}" for i in range(len(LABELS))]


@pytest.mark.parametrize(
    "videos, percent, down, nearest",
    [(70, 5, 3, 4), (70, 10, 7, 7), (3, 5, 1, 1), (1, 50, 1, 1), (41, 20, 8, 8), (41, 100, 41, 41),
     (70, 0.1, 1, 1), (29, 100 * 7 / 29, 7, 7)],
)  # fmt: skip
def test_a_draw_is_rounded_and_holds_at_least_one_video(videos, percent, down, nearest):
    assert splits.draw_size(videos, percent) == down
    assert splits.draw_size(videos, percent, "nearest") == nearest


@pytest.mark.parametrize("percent", [0, -5, 100.1, float("nan")])
def test_a_percentage_out_of_range_is_an_error(percent):
    with pytest.raises(ValueError, match="percent must lie in"):
        splits.few_shot(LABELS, percent, seed=0)


@pytest.mark.parametrize("seed", [0, 1, 12345])
def test_smaller_draws_are_part_of_larger_ones(seed):
    draws = [splits.few_shot(LABELS, percent, seed) for percent in (1, 5, 7.5, 10, 20, 50, 99, 100)]
    for small, large in itertools.pairwise(draws):
        assert set(small) <= set(large)
    assert draws[-1] == list(range(len(LABELS)))
    assert Counter(LABELS[i] for i in draws[1]) == {"run": 3, "YoYo": 1, "brush_hair": 2}


def test_a_draw_depends_on_the_seed_and_not_on_the_other_classes():
    whole = splits.few_shot(LABELS, 20, seed=3)
    assert whole == splits.few_shot(LABELS, 20, seed=3) != splits.few_shot(LABELS, 20, seed=4)
    runs = splits.few_shot(LABELS[:70], 20, seed=3)
    assert runs == [i for i in whole if i < 70]
    mixed = list(zip(IDS, LABELS, strict=True))
    random.Random(0).shuffle(mixed)
    drawn = splits.few_shot([label for _, label in mixed], 20, seed=3)
    assert Counter(mixed[i][1] for i in drawn) == Counter(LABELS[i] for i in whole)


def test_every_video_has_a_chance_to_be_drawn():
    drawn = Counter(i for seed in range(200) for i in splits.few_shot(["a"] * 10, 10, seed))
    assert len(drawn) == 10 and max(drawn.values()) < 45  # 20 expected, 4.2 the deviation


def test_draws_are_files_that_read_back_identically(tmp_path):
    made = splits.write_draws(tmp_path, IDS, LABELS, seed=0)
    assert list(made) == [5, 10, 20, 50, 100]
    for percent, file in made.items():
        assert splits.read_draw(file) == [IDS[i] for i in splits.few_shot(LABELS, percent, 0)]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in made.values()}
    again = splits.write_draws(tmp_path, IDS, LABELS, seed=0, percents=(5, 33.3))
    assert again[5] == made[5] and again[33.3].name == "33.3-percent.csv"
    assert before == {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in before}
    other = splits.write_draws(tmp_path, IDS, LABELS, seed=1)
    assert other[5].parent != made[5].parent


def test_a_file_changed_by_hand_is_an_error_and_stays(tmp_path):
    file = splits.write_draws(tmp_path, IDS, LABELS, seed=0)[5]
    file.write_text("video,label\n")
    with pytest.raises(ValueError, match=r"5-percent\.csv was changed by hand"):
        splits.write_draws(tmp_path, IDS, LABELS, seed=0)
    assert splits.read_draw(file) == []
    file.write_text("id\nvideo-1\n")
    with pytest.raises(ValueError, match="is no draw"):
        splits.read_draw(file)


def test_ids_and_labels_must_fit(tmp_path):
    with pytest.raises(ValueError, match="2 ids"):
        splits.write_draws(tmp_path, ["a", "b"], ["x"], seed=0)
    with pytest.raises(ValueError, match=r"2 ids \(1 different\)"):
        splits.write_draws(tmp_path, ["a", "a"], ["x", "x"], seed=0)


def test_class_splits_are_files_in_the_data_sets_own_names(tmp_path):
    (tmp_path / "a.txt").write_text("playing drums\n")
    (tmp_path / "b.txt").write_text("YoYo\nDrumming\nbrush_hair\n")
    pairs = concepts.pairs(str(tmp_path / "a.txt"), str(tmp_path / "b.txt"), {}, 0.4)
    model = text_encoders.load("all-MiniLM-L6-v2")
    matched = concepts.match(*pairs, model, model, top=1)
    made = splits.write_classes(tmp_path, matched)
    assert splits.read_classes(made["seen"]) == ["Drumming"]
    assert splits.read_classes(made["unseen"]) == ["YoYo", "brush_hair"]
    assert "all-MiniLM-L6-v2" in (made["seen"].parent / "about.json").read_text()
    assert splits.write_classes(tmp_path, matched) == made


def test_a_label_that_no_class_has_is_an_error():
    assert splits.class_split(["a", "b"], {1}) == {"seen": ["b"], "unseen": ["a"]}
    with pytest.raises(ValueError, match=r"labels \[2\]; there are 2 classes"):
        splits.class_split(["a", "b"], {1, 2})
