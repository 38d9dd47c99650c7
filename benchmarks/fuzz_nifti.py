"""Damage small NIfTI files at random: each must be read, or be refused by an InputError that names it.

Headers get random bytes and extreme values, bodies and gzip streams are flipped, cut, repeated and padded. Each file is
read as an image, as a mask and for its grid, and checked as a sequence and as the mask of a case.

Prints how many files were read and refused, every other exception, the longest time for one file and the peak memory of
the process; the exit status is 1 if there was another exception.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from gliomask.cases import Case, Source, check_case
from gliomask.errors import InputError
from gliomask.inspection import inspect_channels
from gliomask.volume import read_grid, read_volume

SHAPE = (12, 14, 10)
AFFINE = np.diag([-2.0, -2.0, 2.0, 1.0])
_HEADER_BYTES = 352
_DIM, _DATATYPE, _PIXDIM, _OFFSET, _SCALE, _UNITS, _FORMS = 40, 70, 76, 108, 112, 123, 252

_EXTREME_FLOATS = (0.0, -1.0, 1e-38, 1e-3, 0.5, 1.5, 200.0, 1e9, 1e20, 1e38, -1e38, np.nan, np.inf, -np.inf)
_EXTREME_SHORTS = (0, -1, 1, 2, 3, 7, 8, 255, 4096, 16384, 32767, -32768)


def good_files(generator: np.random.Generator) -> list[bytes]:
    """Return the content of valid files: images and a mask in several types, 3-D and 4-D, NIfTI-1 and 2, big-endian."""
    image = generator.integers(1, 900, SHAPE)
    image[:3] = 0
    files = []
    for kind in ("int16", "uint8", "float32", "float64"):
        data = (image % 5 if kind == "uint8" else image).astype(kind)
        files.append(nib.Nifti1Image(data, AFFINE, dtype=data.dtype).to_bytes())
    files.append(nib.Nifti1Image(np.stack([image, image], -1).astype(np.int16), AFFINE).to_bytes())
    files.append(nib.Nifti2Image(image.astype(np.int16), AFFINE).to_bytes())
    big = nib.Nifti1Header(endianness=">")
    big.set_data_dtype(np.dtype(">i2"))
    files.append(nib.Nifti1Image(image.astype(np.int16), AFFINE, big).to_bytes())
    scaled = bytearray(files[0])
    struct.pack_into("<2f", scaled, _SCALE, 0.5, -3.0)
    return [*files, bytes(scaled)]


def flip_header(content: bytearray, generator: np.random.Generator) -> bytes:
    """Set up to eight bytes of the header to random values."""
    places = generator.integers(0, min(_HEADER_BYTES, len(content)), generator.integers(1, 9))
    for place in places:
        content[place] = int(generator.integers(256))
    return bytes(content)


def extreme_field(content: bytearray, generator: np.random.Generator) -> bytes:
    """Set one or two of the fields that say where, how many and of what kind the voxels are to an extreme value."""
    for _ in range(generator.integers(1, 3)):
        value = float(generator.choice(_EXTREME_FLOATS))
        short = int(generator.choice(_EXTREME_SHORTS))
        match generator.integers(7):
            case 0:
                struct.pack_into("<h", content, _DIM + 2 * int(generator.integers(8)), short)
            case 1:
                struct.pack_into("<2h", content, _DATATYPE, int(generator.integers(0, 2305)), short)
            case 2:
                struct.pack_into("<f", content, _PIXDIM + 4 * int(generator.integers(8)), value)
            case 3:
                struct.pack_into("<f", content, _OFFSET, value)
            case 4:
                struct.pack_into("<f", content, _SCALE + 4 * int(generator.integers(2)), value)
            case 5:
                content[_UNITS] = int(generator.integers(256))
            case _:
                struct.pack_into("<f", content, _FORMS + 4 * int(generator.integers(1, 19)), value)
    return bytes(content)


def flip_body(content: bytearray, generator: np.random.Generator) -> bytes:
    """Set up to 64 bytes behind the header to random values: numbers that are none, infinite, or no labels."""
    places = generator.integers(_HEADER_BYTES, len(content), generator.integers(1, 65))
    for place in places:
        content[place] = int(generator.choice([0, 127, 128, 255, int(generator.integers(256))]))
    return bytes(content)


def cut_or_pad(content: bytearray, generator: np.random.Generator) -> bytes:
    """Cut the file anywhere, leave out or repeat a piece of it, or append zeros, noise, or itself."""
    start, end = sorted(int(place) for place in generator.integers(0, len(content) + 1, 2))
    pieces = (
        content[:start],
        content[:start] + content[end:],
        content[:end] + content[start:],
        content + bytes(int(generator.integers(1, 5000))),
        content + generator.bytes(int(generator.integers(1, 500))),
        content + content,
        content[start:],
    )
    return bytes(pieces[generator.integers(len(pieces))])


DAMAGES: tuple[Callable[[bytearray, np.random.Generator], bytes], ...] = (
    flip_header,
    extreme_field,
    flip_body,
    cut_or_pad,
)


def damaged_file(files: list[bytes], generator: np.random.Generator) -> tuple[bytes, str]:
    """Return the content of a damaged file and the ending of its name."""
    content = bytearray(files[generator.integers(len(files))])
    damaged = DAMAGES[generator.integers(len(DAMAGES))](content, generator)
    if generator.random() < 0.4:
        return damaged, ".nii"
    packed = bytearray(gzip.compress(damaged, 1, mtime=0))
    if generator.random() < 0.3 and len(packed) > 20:  # the stream too: its header, its blocks, its sum
        if generator.random() < 0.5:
            return cut_or_pad(packed, generator), ".nii.gz"
        packed[generator.integers(len(packed))] = int(generator.integers(256))
    if generator.random() < 0.02:  # far more behind it than the header promises
        packed += gzip.compress(bytes(200_000_000), 9, mtime=0) if generator.random() < 0.05 else bytes(100_000)
    return bytes(packed), ".nii.gz"


def attempts(path: Path, good: Path) -> dict[str, Callable[[], object]]:
    """Return what is tried with a file."""
    images = {"t1n": Source(good), "t2f": Source(path)}
    return {
        "image": lambda: read_volume(path),
        "mask": lambda: read_volume(path, mask=True),
        "grid": lambda: read_grid(path),
        "check": lambda: check_case(Case("case", images, path, "brats2021"), inspect=inspect_channels),
    }


def fuzz(folder: Path, inputs: int, seed: int) -> tuple[Counter[str], list[str], float]:
    """Read damaged files.

    Returns:
        How many attempts ended how, the tracebacks of other exceptions than an InputError that names the file (a text
        for each), and the longest time that one file took in seconds.
    """
    generator = np.random.default_rng(seed)
    files = good_files(generator)
    good = folder / "good.nii"
    good.write_bytes(files[0])
    ends: Counter[str] = Counter()
    faults: list[str] = []
    longest = 0.0
    for number in range(inputs):
        content, ending = damaged_file(files, generator)
        path = folder / f"damaged{ending}"
        path.write_bytes(content)
        started = time.perf_counter()
        for name, attempt in attempts(path, good).items():
            try:
                attempt()
                ends[f"{name} read"] += 1
            except InputError as error:
                ends[f"{name} refused"] += 1
                if str(path) not in str(error):
                    faults.append(f"input {number}, {name}: the file is not named: {error}")
            except Exception:
                faults.append(f"input {number}, {name}: {traceback.format_exc()}")
        longest = max(longest, time.perf_counter() - started)
    return ends, faults, longest


def peak_memory_mb() -> float | None:
    """Return the largest resident memory of this process so far; None on Windows."""
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1024**2)


def main() -> None:
    """Print what happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # nibabel's remarks on headers
    warnings.simplefilter("error")  # a warning of numpy's is a case that was not thought of
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        ends, faults, longest = fuzz(Path(folder), options.inputs, options.seed)
    for fault in faults[:10]:
        print(fault)
    print(f"{options.inputs} files, seed {options.seed}, in {time.process_time() - started:.0f} s of CPU time")
    print(", ".join(f"{end} {count}" for end, count in sorted(ends.items())))
    memory = peak_memory_mb()
    print(f"longest {longest:.2f} s, peak memory {'unknown' if memory is None else f'{memory:.0f} MB'}")
    print(f"{len(faults)} other exceptions")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
