"""Make the README's pictures: python docs/make_pictures.py DEMO, with the folder that `make demo` left."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from gliomask.cases import find_cases
from gliomask.phantom import write_phantoms
from gliomask.pictures import draw_case

PICTURES = Path(__file__).parent / "pictures"


def main(demo: Path) -> None:
    """Draw a phantom in all sequences, and take the demo's first prediction and its curves."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "cases", 1, seed=1)
        case = find_cases(Path(folder) / "cases")[0]
        sequences = ("flair", "t1ce", "t1", "t2")
        draw_case(case, PICTURES / "phantom.png", sequences=sequences, title="A phantom: drawn from numbers alone")
    shutil.copyfile(next(iter(sorted((demo / "predictions").glob("*.png")))), PICTURES / "prediction.png")
    shutil.copyfile(demo / "run" / "curves.png", PICTURES / "curves.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
