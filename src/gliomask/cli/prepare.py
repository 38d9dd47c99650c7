"""gliomask prepare: prepare cases for training without training yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gliomask.cli.console import advance, counted, end_batch, listed, out, progress, show_notes, warn, with_masks
from gliomask.cli.options import Cluster, Labels, Modalities, Output, Threads, Workers, where_of

EXAMPLES = """
**Examples**

Prepare the cases, then train on them, on the same machine or on another:

`gliomask prepare BraTS2021_Training_Data -o cache`

`gliomask train cache -o run`

Write arrays of (128, 128, 128, 3) for other programs:

`gliomask prepare BraTS2021_Training_Data -o crops --crop 128`
"""


def prepare(
    cases: Annotated[Path, typer.Argument(help="A folder of cases with masks, as downloaded, or a list.")],
    output: Output,
    modalities: Modalities = "flair,t1ce,t2",
    crop: Annotated[
        int | None, typer.Option("--crop", min=16, help="Write cubic arrays of this edge length instead of a cache.")
    ] = None,
    labels: Labels = None,
    threads: Threads = None,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Prepare cases for training: crop them to the brain and store them as memory-mapped arrays, using all cores.

    Cases that are already prepared are kept, so an interrupted preparation continues where it stopped. Prepared cases
    that are no longer among those given are named: they stay in the cache, and are trained on.
    """
    from gliomask.cases import common_convention, get_modality, resolve_conventions, survey
    from gliomask.files import check_writable
    from gliomask.inference.preprocessing import common_spacing
    from gliomask.model.plan import Plan
    from gliomask.training.cache import build_cache, further_cases
    from gliomask.training.cubes import write_crops

    where = where_of(workers, cluster)
    check_writable(output)
    found = survey(cases, output)
    show_notes(found)
    if not found.cases:
        end_batch(found.problems, 0)
    usable = resolve_conventions(with_masks(found.cases, cases), labels)
    plan = Plan(
        modalities=tuple(get_modality(name) for name in modalities.split(",")),
        spacing_mm=common_spacing(usable, "LPS"),
        convention=common_convention(usable),
    )
    with progress("preparing", len(usable)) as bar:
        if crop is None:
            prepared, problems = build_cache(
                usable, output, plan, threads=threads, on_case=lambda _: advance(bar), where=where
            )
            done = len(prepared)
        else:
            crops, problems = write_crops(
                usable, output, plan, crop, threads=threads, on_case=lambda _: advance(bar), where=where
            )
            done = len(crops)
    if crop is None and (further := further_cases(output, {case.id for case in found.cases})):
        warn(
            f"{counted(len(further), 'further case')} in the cache, which training uses too: {listed(further)}. "
            f"Remove their folders from {output} if they are not wanted."
        )
    if not done:
        end_batch([*found.problems, *problems], done)
    if crop is None:
        out.print(f"{counted(done, 'case')} in {output}. Train from it: gliomask train {output} -o run")
    else:
        for made in crops:
            out.print(f"{made.id}: {made.tumour_cut:.1%} of the tumour cut off, {made.brain_cut:.1%} of the brain")
        out.print(f"{counted(done, 'case')} in {output}, CASE_image.npy and CASE_mask.npy each; crops.csv has the cuts")
    end_batch([*found.problems, *problems], done)
