"""Verdicts kept on disk around any judge: nothing is asked, or paid for, twice."""

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from p2r_lib.judges.base import Judge, JudgeRequest, Verdict, request_key

_TABLE = """
CREATE TABLE IF NOT EXISTS verdicts (
    judge TEXT NOT NULL, prompt TEXT NOT NULL, request TEXT NOT NULL,
    sufficient INTEGER NOT NULL, explanation TEXT NOT NULL,
    PRIMARY KEY (judge, prompt, request)
) WITHOUT ROWID
"""
_BUSY = 30.0  # seconds to wait while another process writes


@dataclass(frozen=True)
class CachedJudge:
    """Asks `inner` only what the SQLite file at `path` does not know.

    A verdict is kept under the judge's id, its prompt's version and the request. Failures are never
    kept, so they are asked again. Several processes may share the file.
    """

    inner: Judge
    path: str | Path

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def prompt_hash(self) -> str:
        return getattr(self.inner, "prompt_hash", "")

    def judge(self, requests: Sequence[JudgeRequest]) -> list[Verdict]:
        """One verdict per request, in order. Equal requests are asked once."""
        keys = [request_key(request) for request in requests]
        known = self._load(keys)
        missing = {
            key: request for key, request in zip(keys, requests, strict=True) if key not in known
        }
        fresh = dict(
            zip(missing, self.inner.judge(list(missing.values())) if missing else [], strict=True)
        )
        self._store(fresh)
        return self._in_order(keys, known, fresh)

    @staticmethod
    def _in_order(
        keys: Sequence[str], known: dict[str, Verdict], fresh: dict[str, Verdict]
    ) -> list[Verdict]:
        """Verdicts of the keys. The first of equal requests carries what the verdict has cost."""
        verdicts, paid = [], set(known)
        for key in keys:
            verdict = known.get(key) or fresh[key]
            if key in paid:
                spent = {"input_tokens": 0, "output_tokens": 0, "cost": 0.0, "latency": 0.0}
                verdict = replace(verdict, cached=verdict.sufficient is not None, **spent)
            paid.add(key)
            verdicts.append(verdict)
        return verdicts

    def _connect(self) -> sqlite3.Connection:
        """A connection of its own for each call: it works in any thread, and after a fork."""
        Path(self.path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_BUSY)
        _patiently(lambda: connection.execute("PRAGMA journal_mode=WAL"))
        connection.execute(_TABLE)
        return connection

    def _load(self, keys: Iterable[str]) -> dict[str, Verdict]:
        query = (
            "SELECT sufficient, explanation FROM verdicts WHERE judge=? AND prompt=? AND request=?"
        )
        known = {}
        with closing(self._connect()) as connection:
            for key in keys:
                row = connection.execute(query, (self.id, self.prompt_hash, key)).fetchone()
                if row:
                    known[key] = Verdict(bool(row[0]), row[1], self.id, cached=True)
        return known

    def _store(self, fresh: dict[str, Verdict]) -> None:
        rows = [
            (self.id, self.prompt_hash, key, int(verdict.sufficient), verdict.explanation)
            for key, verdict in fresh.items()
            if verdict.sufficient is not None
        ]
        if rows:
            with closing(self._connect()) as connection, connection:
                connection.executemany("INSERT OR IGNORE INTO verdicts VALUES (?,?,?,?,?)", rows)


def _patiently(step: Callable[[], object]) -> None:
    """Repeats `step` while the file is locked: SQLite's own timeout does not cover the change to
    WAL, which the first processes to open a new file attempt together."""
    give_up = time.monotonic() + _BUSY
    while True:
        try:
            step()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)
