"""The committed notebooks are built from their sources, run in order, and show no machine."""

from pathlib import Path

import jupytext
import nbformat
import pytest

NOTEBOOKS = Path(__file__).resolve().parents[1] / "notebooks"
SOURCES = sorted((NOTEBOOKS / "source").glob("*.py"))


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def pair(request):
    source = request.param
    built = nbformat.read(NOTEBOOKS / f"{source.stem}.ipynb", as_version=4)
    return jupytext.read(source), built


def test_every_notebook_has_a_source():
    assert [path.stem for path in SOURCES] == sorted(p.stem for p in NOTEBOOKS.glob("*.ipynb"))
    assert SOURCES


def test_cells_are_those_of_the_source(pair):
    source, built = pair
    assert [(c.cell_type, c.source) for c in built.cells] == [
        (c.cell_type, c.source) for c in source.cells
    ], "run notebooks/build.py"


def test_it_was_run_in_order_without_an_error(pair):
    _, built = pair
    code = [cell for cell in built.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert not [o for cell in code for o in cell.outputs if o.output_type == "error"]


def test_pictures_have_alt_texts_and_no_machine_shows(pair):
    _, built = pair
    for cell in built.cells:
        for output in cell.get("outputs", []):
            picture = output.get("data", {}).get("image/png")
            assert not picture or output["metadata"]["image/png"]["alt"]
    text = nbformat.writes(built)
    home = str(Path.home())
    assert f"{home}/" not in text
    assert str(NOTEBOOKS.parent) not in text


def test_code_cells_are_short_and_narrow(pair):
    for cell in pair[0].cells:
        if cell.cell_type == "code":
            lines = cell.source.splitlines()
            assert len(lines) <= 22
            assert max(map(len, lines), default=0) <= 88
