import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from p2r_lib.course.quickstart import write_ablation_report, write_quickstart_report
from p2r_lib.toyworld import experiment
from p2r_lib.toyworld.experiment import load_recipe, run_ablation, run_quickstart
from p2r_lib.toyworld.pretrain import Course, PretrainConfig, Stage, pretrain


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """The shipped recipe on a base that two steps made, with a handful of questions."""
    base = tmp_path_factory.mktemp("base")
    course = Course("test", (Stage(2),), 0.01)
    pretrain(base, PretrainConfig(courses=(course,), batch_size=2), workers=0)
    tiny = replace(load_recipe("tiny-cpu", smoke=True), base=str(base), heldout=7, prompts=7)
    rl = {**tiny.rl, "per_device_train_batch_size": 8, "max_completion_length": 24}
    return replace(tiny, annotated=14, max_new_tokens=24, rl=rl)


def test_a_run_that_was_interrupted_goes_on_and_does_nothing_twice(tmp_path, recipe, monkeypatch):
    folder = tmp_path / "run"
    real = experiment.run_rl

    def interrupted(target, *arguments, **settings):
        if target.name == "pa_grpo":
            raise KeyboardInterrupt
        return real(target, *arguments, **settings)

    monkeypatch.setattr(experiment, "run_rl", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_quickstart(folder, recipe)
    before = {path: path.stat().st_mtime_ns for path in (folder / "sft").iterdir()}
    assert not (folder / "metrics.json").exists()

    monkeypatch.setattr(experiment, "run_rl", real)
    metrics = run_quickstart(folder, recipe)
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "sft").iterdir()}
    assert json.loads((folder / "metrics.json").read_text()) == metrics
    assert set(metrics) == {"base", "sft", "grpo", "pa_grpo"}
    keys = {"n", "answer_accuracy", "sufficiency", "format", "mismatch"}
    assert all(keys <= entry.keys() and entry["n"] == 7 for entry in metrics.values())

    report = write_quickstart_report(folder).read_text(encoding="utf-8")
    assert "http" not in report.replace("http-equiv", "").replace("http://www.w3.org", "")
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= {
        "dynamics",
        "collapse",
        "mismatch",
    }
    assert list((folder / "pa_grpo").rglob("events.out.tfevents.*"))


def test_other_settings_in_the_same_folder_are_refused(tmp_path, recipe):
    experiment.claim(tmp_path, recipe, seed=0)
    experiment.claim(tmp_path, recipe, seed=0)
    with pytest.raises(ValueError, match="other settings"):
        experiment.claim(tmp_path, recipe, seed=1)


def test_ablation_has_every_seed_and_credit(tmp_path, recipe):
    results = run_ablation(tmp_path, recipe, seeds=[3, 4], credits=["process", "outcome"])
    for decoding in ("greedy", "sampled"):
        assert list(results[decoding]) == ["sft", "process", "outcome"]
        assert all(len(entries) == 2 for entries in results[decoding].values())
    write_ablation_report(tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "PA-GRPO" in table
    assert "2 seeds" in table
    gains = table.split("PA-GRPO minus each other setting")[1].split("\n\n")[1]
    by_hand = [
        100 * (ours["sufficiency"] - sft["sufficiency"])
        for ours, sft in zip(results["greedy"]["process"], results["greedy"]["sft"], strict=True)
    ]
    assert f"{sum(by_hand) / 2:+.1f}".replace("-", "−") in gains
    assert "groups that collapsed" in table


def test_unknown_recipes_keys_and_credits_are_named(tmp_path, recipe):
    with pytest.raises(ValueError, match="tiny-cpu"):
        load_recipe("no-such-recipe")
    for name in ("toy", "sft", "rl"):
        (tmp_path / f"{name}.yaml").write_text("anotated: 3\n" if name == "toy" else "")
    with pytest.raises(ValueError, match="anotated"):
        load_recipe(str(tmp_path))
    with pytest.raises(ValueError, match="'both'"):
        run_ablation(tmp_path, recipe, seeds=[0], credits=["both"])


def test_runs_of_a_process_that_died_are_taken_up_again(tmp_path):
    dies_once = (
        f"import os, pathlib\nmark = pathlib.Path({str(tmp_path / 'died')!r})\n"
        "if not mark.exists():\n    mark.touch()\n    os._exit(1)\n"
        "mark.with_name('done').touch()\n"
    )
    plans = [(exec, dies_once), (Path.touch, tmp_path / "strong")]
    experiment._in_parallel(plans, 2, "test")
    assert (tmp_path / "strong").exists()
    assert (tmp_path / "done").exists()
    with pytest.raises(RuntimeError, match="run it again to go on"):
        experiment._in_parallel([(os._exit, 1)], 2, "test")
