"""The viewer: a page that shows a case, its masks, and the differences between them, served on this machine.

A `Scene` is the content of a page. `scene_content` returns it as JSON, and `volume_bytes` returns each of its volumes,
listed by `volume_names`, as NIfTI. `serve_scene` serves one scene on this machine; other servers use these functions
and the files of `ASSETS`.

On the page, `viewer.js` exports `createViewer(element, scene, options)`, which builds the viewer inside the element and
returns a promise of `{destroy()}`. The page links `viewer.css` (all its rules apply below `.gliomask-viewer`) and
imports `viewer.js`, which loads the other files from the same folder, so all of `ASSETS` have to be served from one
folder. Options: `niivue`, the URL of niivue.js if it is served elsewhere; `shortcuts`, false for a page that uses the
keys itself.

A scene as JSON; URLs are relative to the page, and each is `prefix` followed by a name of `volume_names`:

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

A page that may correct a mask also has `edit` (`Editing.content`): what adding to a region and removing from it
makes of each label, how often to save, and `url`, the address of what `Editing.answer` does (`edit/` by default).

`role` is truth, prediction or mask. The values of a mask are those of its own label convention, so each mask has its
own `regions`; the outer list has their colours, in the order in which they are painted, innermost last. `comparisons`
compare the truth with each other mask. Volumes are cropped to their non-empty part, and `first_voxel` is the position
of its first voxel in the grid of the case. `beside`, if there is one, is the scene of a second examination, which the
page shows beside the first one at the same position in mm. Nothing contains text from a file's header.
"""

from gliomask.viewer.assets import ASSETS, Asset, read_asset, require_niivue
from gliomask.viewer.editing import ACTS, Editing, WindowError, edit_mask
from gliomask.viewer.scene import (
    Scene,
    ShownMask,
    compare_masks,
    packed,
    read_raw_scene,
    read_scene,
    scene_content,
    volume_bytes,
    volume_names,
)
from gliomask.viewer.server import SECURITY_HEADERS, Served, serve_scene

__all__ = [
    "ACTS",
    "ASSETS",
    "SECURITY_HEADERS",
    "Asset",
    "Editing",
    "Scene",
    "Served",
    "ShownMask",
    "WindowError",
    "compare_masks",
    "edit_mask",
    "packed",
    "read_asset",
    "read_raw_scene",
    "read_scene",
    "require_niivue",
    "scene_content",
    "serve_scene",
    "volume_bytes",
    "volume_names",
]
