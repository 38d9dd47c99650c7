"""The viewer: a case, its masks and where they differ, on a page of this machine.

What a page shows is a `Scene`; `scene_content` gives it as JSON, `volume_bytes` each of its volumes as NIfTI, by the
names of `volume_names` and no others. `serve_scene` serves one scene on this machine; other servers do so by themselves
with these functions and the files of `ASSETS`.

The page's side: `viewer.js` exports `createViewer(element, scene, options)`, which builds everything inside the element
and gives a promise of `{destroy()}`. A page links `viewer.css` (all its rules are below `.gliomask-viewer`) and imports
`viewer.js`; the other files are found beside it, so all of `ASSETS` have to be served from one folder. Options:
`niivue`, where niivue.js is served if not there; `shortcuts`, false for a page that needs the keys itself.

A scene as JSON; addresses are relative to the page, each is `prefix` and a name of `volume_names`:

    {"title": "BraTS2021_00008",
     "notice": "Research use only, not a medical device.",
     "start_mm": [12.0, -30.5, 44.0], "first_voxel": [41, 30, 0],
     "images": [{"name": "t2f", "label": "T2-FLAIR", "url": "volumes/t2f.nii.gz", "window": [0, 1422]}],
     "masks": [{"name": "prediction", "role": "prediction", "label": "prediction: 00008.nii.gz",
                "url": "volumes/prediction.nii.gz", "convention": "brats2021",
                "tissues": [{"value": 1, "name": "NCR", "label": "necrotic or non-enhancing core"}],
                "regions": {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]},
                "volumes_ml": {"WT": 81.2, "TC": 30.1, "ET": 21.5}}],
     "regions": [{"name": "WT", "label": "whole tumour", "color": "#56b4e9"}],
     "comparisons": [{"mask": "prediction", "region": "WT", "url": "volumes/prediction-WT.nii.gz", "dice": 0.93,
                      "volumes_ml": {"agreed": 74.0, "missed": 3.1, "false": 7.2}}],
     "agreement": [{"value": 1, "name": "agreed", "label": "in both", "color": "#009e73"}]}

`role` is truth, prediction or mask. Numbers in a mask are those of its own convention, so `regions` stand in each mask;
the outer list has their colours, in the order in which they are painted, the innermost last. `comparisons` are of the
truth with each other mask. Volumes are cut to what is not empty:
`first_voxel` is where theirs lies in the case's grid. No text of a file's header is in any of it.
"""

from gliomask.viewer.assets import ASSETS, Asset, read_asset, require_niivue
from gliomask.viewer.scene import (
    Scene,
    ShownMask,
    compare_masks,
    read_scene,
    scene_content,
    volume_bytes,
    volume_names,
)
from gliomask.viewer.server import SECURITY_HEADERS, Served, serve_scene

__all__ = [
    "ASSETS",
    "SECURITY_HEADERS",
    "Asset",
    "Scene",
    "Served",
    "ShownMask",
    "compare_masks",
    "read_asset",
    "read_scene",
    "require_niivue",
    "scene_content",
    "serve_scene",
    "volume_bytes",
    "volume_names",
]
