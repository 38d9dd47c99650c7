"""Measure what a finished case costs when `predict` is started again: its mask is hashed, not decompressed.

The mask of a full-size phantom, with the record beside it that `predict` writes. "Decompressed" is the same look at the
case and, before it, reading the mask whole to see that it is not damaged.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gliomask.cases import find_cases
from gliomask.inference.record import Wanted, describe_images, digest_of, find_state, is_readable
from gliomask.phantom import write_phantoms

REPEAT = 200


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(folder / "phantom", 1, size=240)
        [case] = find_cases(folder / "phantom")
        assert case.mask is not None
        mask = folder / "mask.nii.gz"
        mask.write_bytes(case.mask.read_bytes())
        settings = {"models": ["a"], "window": "auto", "mirror": False, "precision": "auto", "labels": "brats2021"}
        wanted = Wanted(settings, tuple(case.images))
        images = describe_images(case, wanted.modalities)
        facts = {"settings": settings, "images": images, "mask": digest_of(mask.read_bytes())}
        (folder / "mask.json").write_text(json.dumps(facts), "utf-8")
        assert find_state(mask, case, wanted).action == "keep"
        hashed = cpu_ms(lambda: find_state(mask, case, wanted))
        whole = cpu_ms(lambda: (is_readable(mask, mask=True), find_state(mask, case, wanted)))
    print(f"CPU time of a finished case: decompressed {whole:.2f} ms : hashed {hashed:.2f} ms = {whole / hashed:.1f}")


def cpu_ms(look: Callable[[], object]) -> float:
    """Return the milliseconds of processor time of one look, the mean of many."""
    started = time.process_time()
    for _ in range(REPEAT):
        look()
    return 1000 * (time.process_time() - started) / REPEAT


if __name__ == "__main__":
    main()
