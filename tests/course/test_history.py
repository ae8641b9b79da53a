"""Training logs from every form they come in."""

import json
import math

import numpy as np
import pytest

from p2r_lib.course.history import over_runs, read_events, read_log, series, smooth

ROWS = [{"step": 1, "reward": 0.5}, {"step": 2, "reward": None, "loss": 0.1}, {"step": 2, "x": 1}]


def check(history):
    assert [row["step"] for row in history] == [1, 2, 2]
    assert history[0]["reward"] == 0.5
    assert math.isnan(history[1]["reward"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log_history.json", json.dumps(ROWS, indent=0)),
        ("trainer_state.json", json.dumps({"log_history": ROWS, "epoch": 1.0}, indent=2)),
        ("state.json", json.dumps({"log_history": ROWS})),
        ("metrics.jsonl", "\n".join(map(json.dumps, ROWS)) + "\n"),
    ],
)
def test_reads_lists_states_and_lines(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    check(read_log(tmp_path / name))


def test_a_folder_gives_its_own_log_before_that_of_its_last_checkpoint(tmp_path):
    for step in (9, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        state = {"log_history": [{"step": step}]}
        (folder / "trainer_state.json").write_text(json.dumps(state))
    assert read_log(tmp_path) == [{"step": 10}]
    (tmp_path / "log_history.json").write_text(json.dumps([{"step": 3}]))
    assert read_log(tmp_path) == [{"step": 3}]


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no log_history"):
        read_log(tmp_path)
    other = tmp_path / "other.json"
    other.write_text('{"name": "x"}')
    with pytest.raises(ValueError, match=r"other\.json: need rows with a step"):
        read_log(other)
    with pytest.raises(FileNotFoundError, match="no TensorBoard event file"):
        read_events(tmp_path)


def test_tensorboard_scalars_get_the_logs_names(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(tmp_path / "runs" / "x") as writer:
        for step in (1, 2):
            writer.add_scalar("train/perception/accuracy", step / 4, step)
        writer.add_scalar("eval/reward", 0.75, 2)
    assert read_events(tmp_path) == [
        {"step": 1, "perception/accuracy": 0.25},
        {"step": 2, "perception/accuracy": 0.5, "eval_reward": 0.75},
    ]


def test_series_drops_what_is_missing_and_keeps_the_last_of_a_step():
    rows = [{"step": 2, "a": 1.0}, {"step": 1, "a": 3.0}, {"step": 2, "a": 2.0}]
    rows += [{"step": 3, "a": math.nan}, {"step": 4}]
    steps, values = series(rows, "a")
    assert (steps.tolist(), values.tolist()) == ([1, 2], [3.0, 2.0])
    assert series(rows, "b")[0].tolist() == []


def test_runs_are_compared_on_their_common_steps():
    runs = [[{"step": s, "a": float(s)} for s in steps] for steps in ([1, 2, 4], [2, 3, 4])]
    steps, values = over_runs(runs, "a")
    assert steps.tolist() == [2, 4]
    assert values.tolist() == [[2, 4], [2, 4]]
    assert over_runs(runs, "b")[1].shape == (2, 0)
    assert over_runs([], "a")[1].size == 0


def test_smoothing_averages_backwards_within_a_run():
    values = np.array([0.0, 2.0, 4.0, 6.0])
    assert smooth(values, 3).tolist() == [0, 1, 2, 4]
    assert smooth(values, 1).tolist() == values.tolist()
