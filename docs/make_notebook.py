"""Execute the notebook in `examples` and save its outputs in it: python docs/make_notebook.py."""

from __future__ import annotations

import base64
import hashlib
import io
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

NOTEBOOK = Path(__file__).parent.parent / "examples" / "brats_in_ten_minutes.ipynb"

# Colours of a stored picture: the greys, and shades of the colours of three regions. This saves a third of the bytes.
_COLOURS = 160
_ROUNDS = 2  # of k-means; the median cut alone would use all colours for the greys, and the regions would become grey


def main() -> None:
    """Execute the notebook in a temporary folder, and save it with small pictures."""
    with tempfile.TemporaryDirectory() as folder:
        done = execute(read(), Path(folder))
    nbformat.write(tidy(done), NOTEBOOK)


def read() -> NotebookNode:
    """Return the notebook in the repository."""
    return nbformat.read(NOTEBOOK, as_version=4)


def execute(notebook: NotebookNode, folder: Path, seconds: int = 600) -> NotebookNode:
    """Return the notebook with the outputs of its cells, executed in a folder; the first error is raised."""
    return NotebookClient(notebook, timeout=seconds, resources={"metadata": {"path": str(folder)}}).execute()


def tidy(notebook: NotebookNode) -> NotebookNode:
    """Return an executed notebook for the repository: small pictures, no times, and the digest of its code."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # the times of execution
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _few_colours(data["image/png"])
    notebook.metadata = NotebookNode(
        kernelspec={"name": "python3", "display_name": "Python 3", "language": "python"},
        language_info={"name": "python"},
        executed=digest(notebook),
    )
    return notebook


def digest(notebook: NotebookNode) -> str:
    """Return a digest of the code of all cells."""
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def _few_colours(png: str) -> str:
    content = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(_COLOURS, kmeans=_ROUNDS, dither=Image.Dither.NONE).save(content, "PNG", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


if __name__ == "__main__":
    main()
