import json
import logging

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p2r_lib.cot.journal import Journal, replace_text

ROWS = [{"key": str(i), "text": f"{i}\n é \u2028 \ud800"} for i in range(5)]


def test_rows_come_back_with_the_last_of_each_key(tmp_path):
    journal = Journal(tmp_path / "rows.jsonl")
    assert journal.rows == []
    journal.append(ROWS)
    journal.append([{"key": "1", "text": "later"}])
    journal.append([])
    again = Journal(tmp_path / "rows.jsonl")
    assert again.rows == journal.rows == [*ROWS, {"key": "1", "text": "later"}]
    assert again.latest()["1"]["text"] == "later"
    assert again.latest()["2"] == ROWS[2]


@given(cut=st.integers(0, 400))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_cut_leaves_whole_rows_and_a_file_to_append_to(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    path.unlink(missing_ok=True)
    Journal(path).append(ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:cut])
    journal = Journal(path)
    assert journal.rows == ROWS[: whole[:cut].count(b"\n")]
    assert whole.startswith(path.read_bytes())  # nothing but the torn line is gone
    journal.append(ROWS[len(journal.rows) :])
    assert path.read_bytes() == whole


def test_a_torn_line_is_reported(tmp_path, caplog):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"key": "1"}\n\0\0\0')
    with caplog.at_level(logging.WARNING):
        assert Journal(path).rows == [{"key": "1"}]
    assert "cut off 3 bytes" in caplog.text


@pytest.mark.parametrize("damage", ["{", "", "[1]", '{"no": "key"}', '{"key": 3}', "\0"])
def test_damage_elsewhere_is_named_and_nothing_is_lost(tmp_path, damage):
    path = tmp_path / "rows.jsonl"
    text = f'{{"key": "1"}}\n{damage}\n{{"key": "2"}}\ntorn'
    path.write_text(text)
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2: .*take the line out"):
        Journal(path)
    assert path.read_text() == text


def test_a_text_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    replace_text(path, "old")
    replace_text(path, json.dumps({"é": 1}, ensure_ascii=False))
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": 1}
    with pytest.raises(UnicodeEncodeError):
        replace_text(path, "\ud800")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]
    assert "é" in path.read_text(encoding="utf-8")
