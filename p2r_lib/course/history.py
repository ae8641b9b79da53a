"""Reading what a training run logged, from the trainer's JSON or from TensorBoard's files."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

History = list[dict[str, float]]
"""One dict per logged step: "step" and the metrics' values, named as the trainer names them."""


def read_log(path: str | Path) -> History:
    """The rows of a trainer's log: a JSON list of rows, JSON lines, or trainer_state.json.

    A folder is a run's: its log_history.json is read, or its trainer_state.json, or that of its
    last checkpoint. Raises FileNotFoundError if there is none, ValueError for a file that holds no
    rows.
    """
    path = _log_file(Path(path))
    text = path.read_text(encoding="utf-8")
    try:
        rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        data = rows[0] if len(rows) == 1 else rows
    except json.JSONDecodeError:
        data = json.loads(text)
    if isinstance(data, dict):
        data = data.get("log_history", [data])
    if not isinstance(data, list) or not all(isinstance(r, dict) and "step" in r for r in data):
        raise ValueError(f"{path}: need rows with a step, as in trainer_state.json's log_history")
    return [{name: _number(value) for name, value in row.items()} for row in data]


def _log_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    checkpoints = sorted(path.glob("checkpoint-*/trainer_state.json"), key=_checkpoint_step)
    own = [path / "log_history.json", path / "trainer_state.json"]
    found = [file for file in [*own, *reversed(checkpoints)] if file.exists()]
    if not found:
        raise FileNotFoundError(f"{path}: no log_history.json or trainer_state.json")
    return found[0]


def _checkpoint_step(path: Path) -> int:
    step = path.parent.name.removeprefix("checkpoint-")
    return int(step) if step.isdigit() else -1


def _number(value: Any) -> Any:
    return math.nan if value is None else value


def read_events(folder: str | Path) -> History:
    """The scalars of a TensorBoard folder, named as in the trainer's own log.

    TensorBoard's "train/reward" is the log's "reward", its "eval/reward" "eval_reward". Raises
    FileNotFoundError if the folder, or one below it, holds no event file.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folders = sorted({file.parent for file in Path(folder).rglob("events.out.tfevents.*")})
    if not folders:
        raise FileNotFoundError(f"{folder}: no TensorBoard event file")
    rows: dict[int, dict[str, float]] = {}
    for found in folders:
        events = EventAccumulator(str(found), size_guidance={"scalars": 0})
        events.Reload()
        for tag in events.Tags()["scalars"]:
            for event in events.Scalars(tag):
                row = rows.setdefault(event.step, {"step": event.step})
                row[_log_name(tag)] = event.value
    return [rows[step] for step in sorted(rows)]


def _log_name(tag: str) -> str:
    kind, _, name = tag.partition("/")
    return {"train": name, "eval": f"eval_{name}"}.get(kind, tag)


def series(history: Iterable[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of one metric, rows without it, or with NaN, left out; the last of a step."""
    found = {row["step"]: float(row[name]) for row in history if row.get(name) is not None}
    kept = [(step, value) for step, value in sorted(found.items()) if not math.isnan(value)]
    steps, values = zip(*kept, strict=True) if kept else ((), ())
    return np.array(steps, dtype=float), np.array(values, dtype=float)


def over_runs(
    histories: Sequence[Iterable[Mapping[str, float]]], name: str, *, window: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(steps (S,), values (runs, S)) on the steps that all runs logged, smoothed within each run.

    `window` logged values, the last of which stands at the step, are averaged.
    """
    runs = [series(history, name) for history in histories]
    common = set.intersection(*(set(steps.tolist()) for steps, _ in runs)) if runs else set()
    steps = np.array(sorted(common))
    rows = [smooth(values[np.isin(own, steps)], window) for own, values in runs]
    return steps, np.array(rows).reshape(len(runs), len(steps))


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Mean of each value and the up to `window` - 1 before it.

    >>> smooth(np.array([0.0, 2.0, 4.0]), 2).tolist()
    [0.0, 1.0, 3.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)
