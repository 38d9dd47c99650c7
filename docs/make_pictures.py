"""Make the README's pictures: python docs/make_pictures.py DEMO, where DEMO is the folder written by `make demo`."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from gliomask.cases import find_cases
from gliomask.inference.loading import load_model
from gliomask.inference.prediction import predict
from gliomask.phantom import write_phantoms
from gliomask.report.pictures import draw_case, draw_prediction

PICTURES = Path(__file__).parent / "pictures"


def main(demo: Path) -> None:
    """Draw a phantom in all sequences and another with its predicted mask, and copy the curves of the demo."""
    with tempfile.TemporaryDirectory() as folder:
        write_phantoms(Path(folder) / "cases", 1, seed=1)
        case = find_cases(Path(folder) / "cases")[0]
        sequences = ("flair", "t1ce", "t1", "t2")
        draw_case(case, PICTURES / "phantom.png", sequences=sequences, title="A phantom: a synthetic examination")
        write_phantoms(Path(folder) / "others", 1)
        found = predict(load_model(), find_cases(Path(folder) / "others")[0])
        draw_prediction(found, PICTURES / "prediction.png")
    shutil.copyfile(demo / "run" / "curves.png", PICTURES / "curves.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
