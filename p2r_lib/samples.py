"""One question about one clip or image, and the files such questions are kept in.

Three record schemas are read and written: Video-R1's, VideoP2R's CoT records, and the RL file of
VideoP2R in which every value is a string. A file is a JSON list or JSON lines, gzipped or not.

| field | Video-R1 | VideoP2R | VideoP2R, strings |
| --- | --- | --- | --- |
| problem_id | integer | integer | "7" |
| problem, data_type, problem_type, path, data_source | string | string | string |
| options | list of "A. red" | list | "['A. red', 'B. blue']" |
| solution | "<answer>A</answer>" | the same | the same |
| process | string, CoT files only | string or null | string, "" for none |
| answer, observation, output | - | string or null | string, "" for none |
| reward | number, CoT files only | number | "1.0" |
| select, clean_version | as stored | as stored | string |
"""

import ast
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import logging
import os
import re
import string
import tokenize
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

PROBLEM_TYPES = ("multiple choice", "numerical", "OCR", "free-form", "regression")
DATA_TYPES = ("video", "image")
SCHEMAS = ("video-r1", "videop2r", "videop2r-strings")

_LETTERED = re.compile(r"\s*\(?([A-Za-z])[.):]\s*(.*)", re.DOTALL)
_SOLUTION = re.compile(r"\s*<answer>(.*)</answer>\s*", re.DOTALL)
_ANNOTATIONS = ("observation", "process", "output")
_STRINGS = ("problem", "data_type", "problem_type", "path", "data_source", *_ANNOTATIONS)
_READ_INTO_FIELDS = frozenset(("problem_id", "options", "solution", "answer", *_STRINGS))
_TRUTH_VALUES = {"True": True, "true": True, "False": False, "false": False, "": None}
_FLAT = "write flat records of strings and ordinary numbers"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoQA:
    """One question about one clip or image.

    `options` are as stored ("A. red"), `answer` is the truth without its tags, `path` is as stored
    (see `resolve_media`). `observation`, `process` (the reasoning) and `output` (the whole
    response) are an annotator's, as stored, or None. `extra` holds the record's other fields.
    """

    problem_id: str
    problem: str
    data_type: str
    problem_type: str
    options: tuple[str, ...]
    answer: str
    path: str
    data_source: str = ""
    observation: str | None = None
    process: str | None = None
    output: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def sample_id(self) -> str:
        """16 hex digits that depend on the question, options, path and answer alone."""
        key = json.dumps([self.problem, list(self.options), self.path, self.answer])
        return hashlib.sha256(key.encode("ascii")).hexdigest()[:16]

    @property
    def solution(self) -> str:
        """The truth as the released files store it: "<answer>B</answer>"."""
        return f"<answer>{self.answer}</answer>"


def split_options(options: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """(letter, text) of each option.

    The letters are those written before the texts if every option has one of its own, else
    A, B, C... by position.

    >>> split_options(["A. red", "B. blue"])
    (('A', 'red'), ('B', 'blue'))
    >>> split_options(["red", "blue"])
    (('A', 'red'), ('B', 'blue'))
    """
    if len(options) > len(string.ascii_uppercase):
        raise ValueError(f"{len(options)} options, but there are only 26 letters: use fewer")
    matches = [_LETTERED.fullmatch(option) for option in options]
    letters = [match[1].upper() for match in matches if match]
    if len(set(letters)) == len(options):
        return tuple((m[1].upper(), m[2].strip()) for m in matches if m)
    return tuple(zip(string.ascii_uppercase, (option.strip() for option in options), strict=False))


class SampleError(ValueError):
    """A file or one of its records cannot be used: says which, what is wrong and what to do.

    `row` counts from 1 (the line number in JSON lines); row and field are None where the fault is
    the whole file's or the whole row's.
    """

    def __init__(
        self, file: str | Path, row: int | None, field: str | None, reason: str, fix: str
    ) -> None:
        super().__init__(file, row, field, reason, fix)
        self.file, self.row, self.field = str(file), row, field
        self.reason, self.fix = reason, fix

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        field = "" if self.field is None else f", field {self.field!r}"
        return f"{self.file}{row}{field}: {self.reason}; {self.fix}"


class _Fault(Exception):
    """What is wrong with one record, before its file and row are known."""

    def __init__(self, field: str | None, reason: str, fix: str) -> None:
        super().__init__(field, reason, fix)
        self.field, self.reason, self.fix = field, reason, fix


def read_samples(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    require_media: bool = False,
    on_error: Literal["stop", "skip"] = "stop",
) -> list[VideoQA]:
    """The samples of a file; see `read_report`. Skipped rows are logged."""
    samples, _ = read_report(
        path, media_root=media_root, require_media=require_media, on_error=on_error
    )
    return samples


def read_report(
    path: str | Path,
    *,
    media_root: str | Path | None = None,
    require_media: bool = False,
    on_error: Literal["stop", "skip"] = "skip",
) -> tuple[list[VideoQA], list[SampleError]]:
    """The samples of a file and the faults of the rows that were skipped.

    Whether the file is gzipped and whether it is a list or lines is read from its content, not
    from its name. JSON lines are streamed; a JSON list is read whole. With `require_media` a
    sample whose clip or image is not there (see `resolve_media`; without `media_root` paths start
    at the file's folder) is a fault too.

    Raises SampleError at the first faulty row with on_error="stop", and whatever `on_error` is
    for a file that cannot be read to its end: a part of it is not mistaken for the whole.
    """
    if on_error not in ("stop", "skip"):
        raise ValueError(f'on_error is "stop" or "skip", not {on_error!r}')
    path = Path(path)
    root = (path.parent if media_root is None else Path(media_root)) if require_media else None
    samples: list[VideoQA] = []
    errors: list[SampleError] = []
    for row, load in _rows(path):
        try:
            samples.append(_sample(load(), root))
        except _Fault as fault:
            errors.append(SampleError(path, row, fault.field, fault.reason, fault.fix))
            if on_error == "stop":
                raise errors[-1] from fault
    if errors:
        _log.warning(
            "%s: skipped %d of %d rows; the first: %s",
            path,
            len(errors),
            len(errors) + len(samples),
            errors[0],
        )
    return samples, errors


def write_samples(
    samples: Iterable[VideoQA],
    path: str | Path,
    *,
    schema: Literal["video-r1", "videop2r", "videop2r-strings"],
) -> None:
    """Write samples as a JSON list (.json) or JSON lines (.jsonl), gzipped if .gz follows.

    `schema` is one of `SCHEMAS` (the table above). "video-r1" has no place for observation and
    output, which are then left out and logged. In "videop2r-strings" values of `extra` other than
    reward and select come back as strings. The file appears complete or not at all.
    """
    if schema not in SCHEMAS:
        raise ValueError(f"unknown schema {schema!r}: use one of {', '.join(SCHEMAS)}")
    path, samples = Path(path), list(samples)
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending not in ("json", "jsonl"):
        raise ValueError(f"{path}: the name must end in .json or .jsonl, or one of them and .gz")
    dropped = sum(bool(sample.observation or sample.output) for sample in samples)
    if schema == "video-r1" and dropped:
        _log.warning("%s: left out the observation or output of %d samples", path, dropped)
    rows = (_json(record(sample, schema=schema)) for sample in samples)
    with _replacing(path) as file:
        _write_rows(file, rows, as_list=ending == "json")


def record(sample: VideoQA, *, schema: str) -> dict[str, Any]:
    """One sample as a JSON-ready record of `schema` (see `write_samples`)."""
    fields = {
        "problem_id": _integer_if_exact(sample.problem_id),
        "problem": sample.problem,
        "data_type": sample.data_type,
        "problem_type": sample.problem_type,
        "options": list(sample.options),
        "solution": sample.solution,
        "path": sample.path,
        "data_source": sample.data_source,
    }
    if schema == "video-r1":
        process = {} if sample.process is None else {"process": sample.process}
        return {**sample.extra, **fields, **process}
    fields["answer"] = sample.extra.get("answer", sample.answer)
    fields |= {name: getattr(sample, name) for name in _ANNOTATIONS}
    fields = {**sample.extra, **fields}
    if schema == "videop2r":
        return fields
    return {name: _as_string(value) for name, value in fields.items()}


def resolve_media(sample: VideoQA, media_root: str | Path | None) -> Path:
    """Where the sample's clip or image lies: its path below `media_root`, or an absolute path."""
    return Path(media_root or ".") / sample.path


# ---------------------------------------------------------------- reading: file -> rows


def _rows(path: Path) -> Iterator[tuple[int, Callable[[], Any]]]:
    """(row number, function that returns the row's JSON value or raises _Fault)."""
    try:
        with _text(path) as file:
            number, line = _first_line(file)
            if not number:
                raise _file_error(path, "the file is empty", "write or fetch it again")
            if line.lstrip().startswith("["):
                yield from _rows_of_list(path, "\n" * (number - 1) + line + file.read())
            else:
                yield from _rows_of_lines(file, number, line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        reason = f"the gzip data are cut short or damaged ({error})"
        raise _file_error(path, reason, "fetch it again") from error
    except UnicodeDecodeError as error:
        raise _file_error(path, f"not UTF-8 ({error})", "convert it to UTF-8") from error
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise _file_error(path, reason, "check the path") from error


def _file_error(path: Path, reason: str, fix: str) -> SampleError:
    return SampleError(path, None, None, reason, fix)


@contextlib.contextmanager
def _text(path: Path) -> Iterator[io.TextIOBase]:
    """The file as text, unzipped if its first two bytes are gzip's."""
    with open(path, "rb") as raw:
        zipped = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        data = gzip.GzipFile(fileobj=raw) if zipped else raw
        with io.TextIOWrapper(data, encoding="utf-8-sig") as text:
            yield text


def _first_line(file: io.TextIOBase) -> tuple[int, str]:
    """(number, text) of the first line that is not blank; of the last if all are; 0 if none is."""
    numbered = (0, "")
    for numbered in enumerate(file, 1):
        if numbered[1].strip():
            break
    return numbered


def _rows_of_list(path: Path, text: str) -> Iterator[tuple[int, Callable[[], Any]]]:
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        reason = f"invalid JSON at line {error.lineno}, column {error.colno}: {error.msg}"
        fix = "mend it there, or fetch the file again if it ends there"
        raise _file_error(path, reason, fix) from error
    except (RecursionError, ValueError) as error:  # too deep, or a number of too many digits
        raise _file_error(path, f"cannot be parsed ({error})", _FLAT) from error
    for row, value in enumerate(rows, 1):
        yield row, lambda value=value: value


def _rows_of_lines(
    file: io.TextIOBase, number: int, line: str
) -> Iterator[tuple[int, Callable[[], Any]]]:
    for row, text in enumerate(itertools.chain([line], file), number):
        if text.strip():
            yield row, lambda row=row, text=text: _parsed_line(row, text)


def _parsed_line(number: int, line: str) -> Any:
    try:
        return json.loads(line.rstrip("\n"))
    except json.JSONDecodeError as error:
        raise _Fault(
            None,
            f"invalid JSON at line {number}, column {error.colno}: {error.msg}",
            "use one JSON object on each line, or one JSON list of objects",
        ) from error
    except (RecursionError, ValueError) as error:
        raise _Fault(None, f"cannot be parsed ({error})", _FLAT) from error


# ---------------------------------------------------------------- reading: row -> sample


def _sample(row: Any, media_root: Path | None) -> VideoQA:
    if not isinstance(row, dict):
        raise _Fault(None, f"a JSON {_kind(row)}, not an object", "write each sample as an object")
    problem_type = _one_of(row, "problem_type", PROBLEM_TYPES)
    options = _options(row.get("options"))
    sample = VideoQA(
        problem_id=_problem_id(row),
        problem=_string(row, "problem"),
        data_type=_one_of(row, "data_type", DATA_TYPES),
        problem_type=problem_type,
        options=options,
        answer=_answer(row, problem_type, options),
        path=_string(row, "path"),
        data_source=_optional_string(row, "data_source") or "",
        **{name: _optional_string(row, name) for name in _ANNOTATIONS},
        extra=_extra(row),
    )
    if media_root is not None and not resolve_media(sample, media_root).is_file():
        reason = f"there is no file {resolve_media(sample, media_root)}"
        raise _Fault("path", reason, "fetch the media, or name their folder with media_root")
    return sample


def _string(row: Mapping[str, Any], name: str) -> str:
    """The field's text; a fault if it is missing, empty or no string."""
    if name not in row:
        raise _Fault(name, "missing", "add it")
    value = row[name]
    if not isinstance(value, str):
        raise _Fault(name, f"a JSON {_kind(value)}, not a string", "write it as a string")
    if not value.strip():
        raise _Fault(name, "empty", "fill it in")
    return value


def _optional_string(row: Mapping[str, Any], name: str) -> str | None:
    """The field's text as stored; None if it is missing, null or empty."""
    value = row.get(name)
    if not isinstance(value, str | None):
        raise _Fault(name, f"a JSON {_kind(value)}, not a string", "write it as a string or null")
    return value or None


def _one_of(row: Mapping[str, Any], name: str, known: Sequence[str]) -> str:
    value = _string(row, name)
    if value not in known:
        raise _Fault(name, f"unknown value {value!r}", f"use one of {', '.join(known)}")
    return value


def _problem_id(row: Mapping[str, Any]) -> str:
    value = row.get("problem_id")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _string(row, "problem_id")


def _options(value: Any) -> tuple[str, ...]:
    """A list of strings, also from its Python or JSON text; missing, null and "" are none."""
    if isinstance(value, str):
        value = _parsed_options(value)
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or not all(isinstance(o, str) for o in value):
        raise _Fault("options", "not a list of strings", 'write it as ["A. red", "B. blue"]')
    if len(value) > len(string.ascii_uppercase):
        raise _Fault("options", f"{len(value)} options for 26 letters", "use at most 26")
    return tuple(value)


def _parsed_options(text: str) -> Any:
    """The value of a JSON or Python literal; nothing is evaluated."""
    if not text.strip():
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise _Fault(
            "options", f"not a JSON or Python list ({text[:60]!r})", "write it as a JSON list"
        ) from error
    # A printed NumPy array has no commas, and Python joins strings that stand side by side.
    tokens = tokenize.generate_tokens(io.StringIO(text.strip()).readline)
    strings = sum(token.type == tokenize.STRING for token in tokens)
    if isinstance(value, list | tuple) and strings > len(value):
        raise _Fault("options", "strings without commas between them", "write it as a JSON list")
    return value


def _answer(row: Mapping[str, Any], problem_type: str, options: Sequence[str]) -> str:
    """The truth, from `solution` or, where there is none, from `answer`."""
    name = "answer" if row.get("solution") is None and "answer" in row else "solution"
    text = _string(row, name)
    match = _SOLUTION.fullmatch(text)
    if match is None and name == "solution":
        raise _Fault(name, f"no answer tags in {text[:60]!r}", "write <answer>...</answer>")
    answer = (match[1] if match else text).strip()
    if not answer:
        raise _Fault(name, "the answer is empty", "fill it in")
    if problem_type == "multiple choice":
        _check_letter(answer, options, name)
    return answer


def _check_letter(answer: str, options: Sequence[str], name: str) -> None:
    letters = [letter for letter, _ in split_options(options)]
    if not letters:
        raise _Fault("options", "a multiple choice question without options", "add the options")
    if answer.upper() not in letters:
        reason = f"{answer[:60]!r} is not the letter of an option"
        raise _Fault(name, reason, f"use one of {', '.join(letters)}")


def _extra(row: Mapping[str, Any]) -> dict[str, Any]:
    """The other fields; reward and select get their types back where they are strings.

    An `answer` beside a solution that differs from it (an annotator's, say) is kept too.
    """
    extra = {name: value for name, value in row.items() if name not in _READ_INTO_FIELDS}
    if isinstance(extra.get("reward"), str):
        extra["reward"] = _number(extra["reward"])
    if isinstance(extra.get("select"), str):
        extra["select"] = _TRUTH_VALUES.get(extra["select"], extra["select"])
    if row.get("solution") is not None and row.get("answer") not in (None, ""):
        truth = _SOLUTION.fullmatch(row["solution"])[1].strip()
        if row["answer"] != truth:
            extra["answer"] = row["answer"]
    return extra


def _number(text: str) -> float | None:
    if not text.strip() or text == "None":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise _Fault("reward", f"{text[:60]!r} is not a number", "write a number") from error


def _kind(value: Any) -> str:
    """JSON's name for the type of a parsed value."""
    kinds = {dict: "object", list: "list", str: "string", bool: "boolean", type(None): "null"}
    return kinds.get(type(value), "number")


# ---------------------------------------------------------------- writing


def _integer_if_exact(problem_id: str) -> int | str:
    """The id as Video-R1's integer, if reading that gives the same id again ("007" stays text)."""
    is_integer = problem_id.isascii() and problem_id.isdigit() and len(problem_id) < 19
    return int(problem_id) if is_integer and str(int(problem_id)) == problem_id else problem_id


def _as_string(value: Any) -> str:
    """A value as the RL file holds it: lists and numbers as Python prints them, None as ""."""
    if value is None:
        return ""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _json(row: Mapping[str, Any]) -> bytes:
    """One line of JSON, readable as it stands; escaped only where UTF-8 cannot hold it."""
    try:
        return json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(row).encode("ascii")


def _write_rows(file: io.BufferedIOBase, rows: Iterable[bytes], *, as_list: bool) -> None:
    before, between, after = (b"[\n", b",\n", b"\n]\n") if as_list else (b"", b"\n", b"\n")
    file.write(before)
    for number, row in enumerate(rows):
        file.write((between if number else b"") + row)
    file.write(after)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[io.BufferedIOBase]:
    """A file that takes the place of `path` once it is complete; gzipped by its name."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as raw:
            if path.name.endswith(".gz"):
                # No name and no time in the header: the same samples give the same bytes.
                with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
                    yield file
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
