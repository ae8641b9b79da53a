import pytest

from p2r_lib.cli import main


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for command in ("quickstart", "ablate", "pretrain-tiny", "toy-data"):
        assert command in shown


def test_a_users_mistake_is_one_line_and_status_2(tmp_path, capsys):
    status = main(["quickstart", "--recipe", "nope", "--output", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert status == 2
    assert error.count("\n") == 1
    assert "nope" in error
    assert "tiny-cpu" in error


def test_toy_data_are_written_where_asked(tmp_path, capsys):
    assert main(["toy-data", "--output", str(tmp_path), "--train", "2", "--heldout", "3"]) == 0
    assert (tmp_path / "heldout.json").exists()
    assert "3 heldout questions" in capsys.readouterr().out
