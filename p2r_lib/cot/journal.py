"""Append-only files of JSON lines, from which an interrupted run takes up its work."""

import json
import logging
import os
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = dict[str, Any]
_log = logging.getLogger(__name__)


class Journal:
    """The rows of one file, each with a `key` that says what was asked; rows are only ever added.

    Opening it mends what an interrupt left: a last line that was cut off is taken away. Raises
    ValueError, with file and line, for damage anywhere else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[Row] = _recover(self.path) if self.path.exists() else []

    def latest(self) -> dict[str, Row]:
        """The last row of each key."""
        return {row["key"]: row for row in self.rows}

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; when it returns they are on disk."""
        rows = [dict(row) for row in rows]
        # ASCII alone: a text may hold half of a surrogate pair, which UTF-8 cannot.
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with open(self.path, "ab") as file:
            file.write(lines.encode("ascii"))
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows


def _recover(path: Path) -> list[Row]:
    """The file's rows; a torn last line is cut off the file."""
    rows, end = [], 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                break  # only the last line can lack its end
            rows.append(_parsed(line, path, number))
            end += len(line)
    if torn := path.stat().st_size - end:
        _log.warning("%s: cut off %d bytes of a line that was not written to its end", path, torn)
        os.truncate(path, end)
    return rows


def _parsed(line: bytes, path: Path, number: int) -> Row:
    try:
        row = json.loads(line)
        if isinstance(row["key"], str):
            return row
        reason = "its key is no string"
    except (ValueError, TypeError, KeyError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise ValueError(
        f"{path}, line {number}: not a row of this file ({reason}); take the line out, and what it "
        "held is asked again"
    )


def replace_text(path: Path, text: str) -> None:
    """Write a whole file that appears complete or not at all."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
