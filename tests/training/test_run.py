"""`p2r sft` and `p2r rl` as they are typed: from questions to a model, and every mistake named."""

import json
from pathlib import Path

import pytest
import yaml

from p2r_lib.cli import main
from p2r_lib.template import format_response
from p2r_lib.toyworld import dataset
from p2r_lib.training import run

QUICK = {
    "max_steps": 1,
    "num_frames": 4,
    "max_pixels_per_frame": 7056,
    "report_to": "none",
    "bf16": False,
    "use_cpu": True,
    "gradient_checkpointing": False,
    "disable_tqdm": True,
}
ROLLOUTS = {
    **QUICK,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 12,
    "judge": "p2r_lib.toyworld.judge:for_dataset",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Path:
    """Eight toy questions with clips and responses."""
    folder = tmp_path_factory.mktemp("toy")
    data = dataset.draw_samples(8, split="train")
    dataset.render_clips(data, folder, progress=False)
    dataset.save(data, folder, "train")
    rows = json.loads((folder / "train.json").read_text("utf-8"))
    for row in rows:
        row["output"] = format_response("I see.", "So it is.", "A")
    _write(folder / "annotated.jsonl", rows)
    return folder


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def recipe(tmp_path, values, **changes) -> str:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**values, **changes}))
    return str(path)


def fails(capsys, *arguments) -> str:
    """The one message of a command that must fail."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_sft_then_rl_from_its_model(toy, tiny_folder, tmp_path):
    sft, rl = tmp_path / "sft", tmp_path / "rl"
    file = recipe(tmp_path, {**QUICK, "per_device_train_batch_size": 2}, model=str(tiny_folder))
    data = ["--dataset", str(toy / "annotated.jsonl"), "--output_dir", str(sft)]
    assert main(["sft", "--recipe", file, *data]) == 0
    assert (sft / "model.safetensors").exists()
    file = recipe(tmp_path, ROLLOUTS, credit="outcome")
    data = ["--model", str(sft), "--dataset", str(toy / "train.json"), "--output_dir", str(rl)]
    assert main(["rl", "--recipe", file, *data, "--credit", "process", "--lora_rank", "2"]) == 0
    logged = json.loads((rl / "log_history.json").read_text())
    assert "perception/accuracy" in logged[0]
    assert (rl / "adapter_model.safetensors").exists()


def test_the_command_line_wins_over_the_recipe(tmp_path):
    file = recipe(tmp_path, ROLLOUTS, model="a", dataset="b", learning_rate=1e-3, beta=0.1)
    found, args = run.parse("rl", ["--recipe", file, "--learning_rate", "1e-4", "--dry_run"])
    assert (args.learning_rate, args.beta, found.model, found.dry_run) == (1e-4, 0.1, "a", True)


@pytest.mark.parametrize("command", ["sft", "rl"])
def test_shipped_recipes_are_read(command):
    shipped = sorted(run.RECIPES.glob(f"*/{command}.yaml"))
    assert shipped
    for path in shipped:
        asked = ["--recipe", path.parent.name, "--model", "m", "--dataset", "d", "--use_cpu"]
        found, args = run.parse(command, asked)
        wanted = yaml.safe_load(path.read_text()) | {"model": "m"}
        for name, value in wanted.items():
            given = getattr(found if hasattr(found, name) else args, name)
            assert given == value or str(value) in str(given), (path, name)


def test_accelerate_configs_are_read():
    from accelerate.commands.config.config_args import load_config_from_file

    found = {path.stem: path for path in (run.RECIPES / "accelerate").glob("*.yaml")}
    assert set(found) == {"ddp", "fsdp2", "zero2", "zero3"}
    kinds = {name: load_config_from_file(str(path)) for name, path in found.items()}
    assert kinds["fsdp2"].fsdp_config["fsdp_version"] == 2
    assert kinds["zero3"].deepspeed_config["zero_stage"] == 3
    assert {config.num_processes for config in kinds.values()} == {8}


def test_a_dry_run_checks_and_trains_nothing(toy, tiny_folder, tmp_path, capsys):
    file = recipe(tmp_path, ROLLOUTS, model=str(tiny_folder), dataset=str(toy / "train.json"))
    assert main(["rl", "--recipe", file, "--output_dir", str(tmp_path / "o"), "--dry_run"]) == 0
    assert "8 questions" in capsys.readouterr().out
    assert not (tmp_path / "o").exists()


def test_mistakes_in_settings_are_named(toy, tmp_path, capsys):
    data = ["--model", "m", "--dataset", str(toy / "train.json")]
    wrong = recipe(tmp_path, {"lerning_rate": 1})
    assert "did you mean 'learning_rate'" in fails(capsys, "rl", "--recipe", wrong, *data)
    assert "'num_generation'" in fails(capsys, "rl", "--num_generation", "4", *data)
    assert "tiny-cpu" in fails(capsys, "rl", "--recipe", "no-such", *data)
    assert "--help-fields" in fails(capsys, "rl")
    file = recipe(tmp_path, ROLLOUTS, num_generations=3)
    assert "num_generations" in fails(capsys, "rl", "--recipe", file, *data)


def test_a_gpu_recipe_without_a_gpu_says_so(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    on_gpu = {name: value for name, value in ROLLOUTS.items() if name != "use_cpu"}
    file = recipe(tmp_path, on_gpu, gpu_memory_gib=24)
    data = ["--recipe", file, "--model", "m", "--dataset", str(toy / "train.json")]
    assert "needs a GPU with 24 GiB and there is none" in fails(capsys, "rl", *data)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    small = type("Properties", (), {"total_memory": 8 * 2**30})
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: small)
    assert "the GPU has 8; lower per_device_train_batch_size" in fails(capsys, "rl", *data)


def test_a_row_without_its_clip_or_response_is_named(toy, tmp_path, capsys):
    rows = [json.loads(line) for line in (toy / "annotated.jsonl").read_text().splitlines()]
    del rows[2]["output"]
    _write(toy / "one-missing.jsonl", rows)
    file = recipe(tmp_path, QUICK)
    asked = ["sft", "--recipe", file, "--model", "m", "--dataset"]
    assert "question 3" in fails(capsys, *asked, str(toy / "one-missing.jsonl"))
    rows[4]["path"] = "clips/nowhere.mp4"
    _write(toy / "no-clip.jsonl", rows)
    message = fails(capsys, *asked, str(toy / "no-clip.jsonl"))
    assert "nowhere.mp4" in message
    assert "5" in message


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"judge": "anthropic", "judge_model": "m"}, "export ANTHROPIC_API_KEY"),
        ({"judge": "openai", "judge_base_url": "http://127.0.0.1:1"}, "set judge_model"),
        ({"judge": "openai", "judge_model": "m", "judge_key_name": "MY_KEY"}, "export MY_KEY"),
        ({"judge": "recorded"}, "set judge_verdicts"),
        ({"judge": "wise"}, "use one of anthropic"),
        ({"judge": "p2r_lib.judges:nobody"}, "nobody"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_named(
    toy, tmp_path, capsys, monkeypatch, settings, message
):
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    file = recipe(tmp_path, ROLLOUTS, **settings)
    data = ["--model", "m", "--dataset", str(toy / "train.json")]
    assert message in fails(capsys, "rl", "--recipe", file, *data)


def test_missing_processor_files_are_named(toy, tiny_folder, tmp_path, capsys):
    model = tmp_path / "model"
    model.mkdir()
    for path in Path(tiny_folder).iterdir():
        if path.name != "processor_config.json":
            (model / path.name).write_bytes(path.read_bytes())
    file = recipe(tmp_path, ROLLOUTS, model=str(model), dataset=str(toy / "train.json"))
    assert "processor" in fails(capsys, "rl", "--recipe", file)
