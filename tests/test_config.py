"""Values of all configurations: defaults, types, ranges, schedules, profiles."""

import pytest

from avnb.config import Config, Evaluation, Finetune, Optim, Pretrain, parse_values
from avnb.data.synthetic.world import World
from avnb.models.methods import METHODS, find_method
from avnb.profiles import PROFILES, Workspace


@pytest.mark.parametrize("text", ["{lr: 1}", "[1]", ""])
def test_text_that_is_no_json_object_is_refused_with_an_example(text):
    assert parse_values('{"precision": "bf16"}') == {"precision": "bf16"}
    with pytest.raises(ValueError, match="write names and values like this"):
        parse_values(text)
    with pytest.raises(ValueError, match="set 'seed' by its own parameter"):
        parse_values('{"seed": 5}')


def test_the_defaults_are_the_thesis():
    run, config = Pretrain(), Evaluation()
    assert (run.clip.frames, run.clip.frame_px, run.clip.samples) == (16, 224, 32_000)
    assert (run.optim.epochs, run.optim.batch, run.clips_per_video) == (100, 128, 5)
    assert run.spectrogram.frames(run.clip.samples) == 125
    assert run.spectrogram.frames(16_000) == 62  # hop 256, one second
    assert (run.xid.negatives, run.xid.temperature, run.xid.lam) == (1024, 0.07, 0.01)
    assert config.video_seconds * config.video_fps == 8


@pytest.mark.parametrize("epoch, lr", [(0, 5e-4), (9, 5e-4), (10, 4.5e-4), (25, 4.05e-4)])
def test_learning_rate_decays_in_steps(epoch, lr):
    assert Optim().lr_at(epoch) == pytest.approx(lr)


def test_probe_learning_rate_decays_after_20_30_and_40_epochs():
    config = Evaluation()
    rates = [config.probe_lr_at(e) for e in (0, 19, 20, 29, 30, 39, 40, 49)]
    expected = [1e-4, 1e-4, 3e-5, 3e-5, 9e-6, 9e-6, 2.7e-6, 2.7e-6]
    assert rates == pytest.approx(expected)


def test_q_reaches_its_last_value_and_one_epoch_is_enough():
    run = Pretrain()
    assert run.xid.q_at(run.optim.progress_at(0)) == pytest.approx(0.001)
    assert run.xid.q_at(run.optim.progress_at(99)) == pytest.approx(0.4)
    assert Optim(epochs=1).progress_at(0) == 0


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_makes_every_config(name):
    work = Workspace.open(name)
    for method in METHODS:
        assert work.pretraining(method=method).method == method
    assert work.finetuning("hmdb51", pretrained=False).optim.tuned_epochs > 0
    assert work.evaluation(seed=3).seed == 3
    World.from_flat(**work.values["world"])


@pytest.mark.parametrize("name", ["demo", "study", "smoke"])
def test_small_runs_of_all_methods_see_the_same_clips_under_the_same_schedule(name):
    runs = [Workspace.open(name).pretraining(method=method) for method in METHODS]
    assert len({(run.optim, run.subset, run.clips_per_video) for run in runs}) == 1
    assert runs[0].subset.patience_epochs >= runs[0].optim.epochs  # none stops early


def test_an_untrained_encoder_is_tuned_for_more_epochs_in_the_ratio_of_the_thesis():
    work = Workspace.open("demo")
    long, short = (work.finetuning("ucf101", pretrained=p).optim for p in (False, True))
    assert long.tuned_epochs / short.tuned_epochs == pytest.approx(100 / 16, rel=0.05)


@pytest.mark.parametrize("kind", [Pretrain, Evaluation, Finetune, World])
def test_flat_values_give_the_same_config(kind: type[Config]):
    assert kind.from_flat(**kind().flat()) == kind()


def test_an_unknown_name_is_an_error_with_a_suggestion():
    with pytest.raises(TypeError, match="'epoch' is unknown; did you mean 'epochs'"):
        Pretrain.from_flat(epoch=3)
    with pytest.raises(ValueError, match="did you mean 'demo'"):
        Workspace.open("demmo")
    with pytest.raises(ValueError, match="did you mean 'xid'"):
        find_method(Pretrain.from_flat(method="xidd").method)


@pytest.mark.parametrize(
    "wrong", [{"epochs": "3"}, {"epochs": 2.5}, {"lr": "fast"}, {"width": True}, {"lr": None}]
)
def test_a_value_of_another_type_is_an_error(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        Pretrain.from_flat(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"hue": 0.9}, {"temperature": 0.0}, {"batch": 30, "shards": 8}, {"micro_batch": -1}]
)
def test_a_value_out_of_range_is_an_error(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Pretrain.from_flat(**wrong)
