"""The set-up holds together: pins, ranges, extras, imports, and what the repository contains."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
DECLARATIONS = ("pyproject.toml", "requirements.txt", "environment.yml")
TOP_LEVEL = {
    "README.md",
    "notebooks",
    "p2r_lib",
    "environment.yml",
    "data_samples",
    "tests",
    "slides",
    "pyproject.toml",
    "requirements.txt",
    "Makefile",
    ".ci",
    ".gitignore",
}

# What is used without an import: the file (or folder) that uses it, and the words that do.
USED_WITHOUT_IMPORT = {
    "jupyterlab": ("Makefile", "jupyter lab"),
    "tensorboard": ("p2r_lib", "tensorboard"),
    "nbmake": ("Makefile", "--nbmake"),
    "pytest-timeout": ("pyproject.toml", "timeout = "),
    "pytest-xdist": ("Makefile", "pytest -n "),
    "ruff": ("Makefile", "ruff check"),
    "uv": ("Makefile", "pip install"),
}

# Module names that no rule derives from the distribution's name.
MODULE_OF = {
    "pillow": "PIL",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
    "umap-learn": "umap",
}


# ---------------------------------------------------------------- reading the declarations


@cache
def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared(*extras: str) -> list[Requirement]:
    """The core requirements and those of the given extras."""
    lines = list(project()["dependencies"])
    for extra in extras:
        lines += project()["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def every_extra() -> list[str]:
    return list(project()["optional-dependencies"])


def names(requirements: list[Requirement]) -> set[str]:
    """Canonical names; what `trl[vllm]` brings counts as `vllm`."""
    brought = {extra for r in requirements for extra in r.extras}
    return {canonicalize_name(r.name) for r in requirements} | brought


def module_of(name: str) -> str:
    return MODULE_OF.get(name, name.replace("-", "_"))


@cache
def pins() -> dict[str, Version]:
    """Canonical name -> version; refuses any line that is not `name==version [; marker]`."""
    found: dict[str, Version] = {}
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        requirement = Requirement(line)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line
        name = canonicalize_name(requirement.name)
        assert name not in found, f"{name} is pinned twice"
        found[name] = Version(specifier.version)
    return found


# ------------------------------------------------------------------ reading the working tree


@cache
def tracked() -> tuple[str, ...]:
    """Repository-relative paths under version control; skips outside a clone."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone: nothing says which files belong to the repository")
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(filter(None, listing.stdout.split("\0")))


def python_sources() -> Iterator[tuple[Path, str]]:
    """Every Python source of the library, the tests and the notebooks (one text a notebook)."""
    for folder in ("p2r_lib", "tests", "notebooks", "slides"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, path.read_text()
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            if ".ipynb_checkpoints" not in path.parts:
                yield path, notebook_code(path)


def notebook_code(path: Path) -> str:
    """The code cells of a notebook without magics and shell lines."""
    cells = json.loads(path.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    lines = "\n".join(cell for cell in code if not cell.startswith("%%")).splitlines()
    return "\n".join(re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in lines)


DYNAMIC_IMPORTS = {"import_module", "importorskip", "find_spec", "__import__"}


def imported_modules(source: str) -> set[str]:
    """Top-level names of the modules that a source imports, by statement or by a literal name."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module)
            case ast.Call(func=function, args=[ast.Constant(value=str(module)), *_]):
                called = getattr(function, "attr", getattr(function, "id", None))
                if called in DYNAMIC_IMPORTS:
                    names.add(module)
    return {name.partition(".")[0] for name in names}


@cache
def imports() -> dict[str, set[str]]:
    """Imported top-level module -> files that import it."""
    found: dict[str, set[str]] = {}
    for path, source in python_sources():
        for module in imported_modules(source):
            found.setdefault(module, set()).add(path.relative_to(ROOT).as_posix())
    return found


def mentions(place: Path, words: str) -> bool:
    files = [place] if place.is_file() else [f for f in place.rglob("*") if f.is_file()]
    texts = (f.read_bytes() for f in files if f.suffix in {"", ".py", ".toml", ".yaml", ".yml"})
    return any(words.encode() in text for text in texts)


# ------------------------------------------------------------------------- pins and ranges


def test_every_dependency_is_pinned():
    assert names(declared("dev")) <= set(pins()), "run `make pins`"


def test_pins_satisfy_every_range():
    for requirement in declared(*every_extra()):
        pin = pins().get(canonicalize_name(requirement.name))
        assert pin is None or pin in requirement.specifier, f"{requirement} refuses {pin}"


def test_the_environment_file_takes_its_versions_from_the_pins():
    *conda, last = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert last["pip"] == ["-r requirements.txt", "-e ."]
    assert conda == ["python=3.11", "pip"]
    assert Version("3.11") in Requirement(f"p{project()['requires-python']}").specifier


@pytest.mark.parametrize("name", DECLARATIONS)
def test_declarations_hold_no_address(name: str):
    text = (ROOT / name).read_text()
    assert "://" not in text
    assert not re.search(r"--(extra-)?index|--find-links|file:", text)


def uv_resolve(requirements: str, *options: str, stdin: str | None = None):
    command = ["uv", "pip", "compile", requirements, "--quiet", "--no-header", *options]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return subprocess.run(
        command,
        cwd=ROOT,
        input=stdin,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
    )


@pytest.mark.network
def test_every_extra_resolves_together_with_the_pins():
    options = ("--all-extras", "--constraint", "requirements.txt", "--no-annotate")
    platform = ("--python-version", "3.11", "--python-platform", "x86_64-manylinux_2_28")
    resolved = uv_resolve("pyproject.toml", *options, *platform)
    if resolved.returncode:
        # One package that exists, asked for anew: does the registry answer at all?
        probe = uv_resolve("-", "--refresh", stdin="packaging")
        if probe.returncode:
            pytest.skip(f"the package registry cannot be reached: {probe.stderr.strip()[:300]}")
        pytest.fail(f"the extras do not fit the pins:\n{resolved.stderr}")
    versions = dict(line.split(" ")[0].split("==") for line in resolved.stdout.splitlines())
    assert names(declared(*every_extra())) <= set(versions)
    moved = {n: v for n, v in versions.items() if n in pins() and Version(v) != pins()[n]}
    assert not moved


# ------------------------------------------------------------------------ imports and use


@pytest.mark.parametrize("name", sorted(names(declared("dev"))))
def test_every_dependency_is_used(name: str):
    if module_of(name) in imports():
        return
    assert name in USED_WITHOUT_IMPORT, f"{name} is declared, but nothing imports it"
    place, words = USED_WITHOUT_IMPORT[name]
    assert mentions(ROOT / place, words), f"{name} is declared, but {place} has no {words!r}"


def test_every_import_is_declared():
    allowed = names(declared(*every_extra()))
    known = {"p2r_lib", "conftest", *sys.stdlib_module_names, *map(module_of, allowed)}
    for module, distributions in packages_distributions().items():
        if allowed & set(map(canonicalize_name, distributions)):
            known.add(module)
    undeclared = {
        module: sorted(files) for module, files in imports().items() if module not in known
    }
    assert not undeclared, "declare these in pyproject.toml, then run `make pins`"


@pytest.mark.parametrize("module", ["p2r_lib", "p2r_lib.cli"])
def test_importing_is_light(module: str):
    heavy = ("torch", "transformers", "matplotlib", "trl", "datasets", "av", "anthropic", "openai")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert run.stdout.strip() == "[]", run.stdout + run.stderr


def test_help_answers_within_a_second():
    p2r = shutil.which("p2r", path=Path(sys.executable).parent)
    assert p2r, "the p2r command is not installed beside this Python"
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        run = subprocess.run([p2r, "--help"], capture_output=True, text=True, cwd="/")
        seconds.append(time.perf_counter() - start)
        assert run.returncode == 0 and "quickstart" in run.stdout, run.stdout + run.stderr
    assert min(seconds) < 1.0, seconds


# ------------------------------------------------------------------ what the repository holds


def test_the_top_level_stays_small():
    assert {path.partition("/")[0] for path in tracked()} <= TOP_LEVEL


# Spelt in pieces, so that this file does not find itself.
FORBIDDEN = {
    "a path of one machine": r"(?<![\w.-])/(?:ro" r"ot|wo" r"rk|ho" r"me/\w+|Use" r"rs/\w+)/",
    "a registry address": r"py" r"pi\.org|python" r"hosted\.org|download\.py" r"torch\.org",
    "a key": r"\bsk-" r"[\w-]{20,}|\bhf_" r"\w{30,}|\bgh[pousr]_" r"\w{30,}|\bAKIA[0-9A-Z]{16}\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE" r" KEY",
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_text_holds(what: str):
    pattern = re.compile(FORBIDDEN[what])
    found = []
    for name in tracked():
        path = ROOT / name
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):  # binary, or deleted and not yet committed
            continue
        found += [f"{name}: {match.group()}" for match in pattern.finditer(text)]
    assert not found, f"{what} in tracked files"


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("a path of one machine", "see /{}/x".format("root")),
        ("a path of one machine", "'/{}/ann/x".format("home")),
        ("a registry address", "https://{}.org/simple".format("pypi")),
        ("a key", "sk-" + "a1" * 12),
        ("a private key", "-----BEGIN RSA PRIVATE" + " KEY-----"),
    ],
)
def test_the_patterns_find_what_they_are_for(what: str, text: str):
    assert re.search(FORBIDDEN[what], text)
    assert not re.search(FORBIDDEN[what], "data_samples/root/home.py uses either/or")
