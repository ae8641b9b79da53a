"""Build the notebooks from their sources and run them: python notebooks/build.py [--no-execute]."""

from __future__ import annotations

import argparse
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent


def build(source: Path, *, execute: bool) -> Path:
    """Write the notebook beside this file; it is run from a fresh kernel and must not fail."""
    notebook = jupytext.read(source)
    notebook.metadata = {
        "kernelspec": {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
    }
    if execute:
        NotebookClient(
            notebook,
            timeout=1200,
            resources={"metadata": {"path": FOLDER}},
            record_timing=False,
        ).execute()
    for index, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{index}", {}
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_bar(output)]
    target = FOLDER / f"{source.stem}.ipynb"
    nbformat.write(notebook, target)
    return target


def _is_bar(output: nbformat.NotebookNode) -> bool:
    """Whether an output is a live widget: without a kernel it shows a progress bar stuck at 0 %."""
    return "application/vnd.jupyter.widget-view+json" in output.get("data", {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--no-execute", action="store_true", help="leave the outputs empty"
    )
    parser.add_argument("names", nargs="*", help="sources to build (default all)")
    options = parser.parse_args()
    for source in sorted((FOLDER / "source").glob("*.py")):
        if not options.names or source.stem in options.names:
            print(build(source, execute=not options.no_execute).name)


if __name__ == "__main__":
    main()
