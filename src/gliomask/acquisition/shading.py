"""The smooth shading of an image by the coils, estimated by N4 and taken out for the registration only."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gliomask.acquisition.itk import from_itk, require_itk, to_itk
from gliomask.volume import Volume

_COARSE_MM = 4.0
_ITERATIONS = (30, 20, 10)


def without_shading(image: Volume, brain: NDArray[np.bool_]) -> Volume:
    """Return the first channel of an image divided by its shading within the brain, which is continued outside of it.

    The shading is estimated at voxels of about 4 mm. Source: Tustison 2010, "N4ITK: Improved N3 Bias Correction",
    doi:10.1109/TMI.2010.2046908, as in SimpleITK.

    Raises:
        InputError: SimpleITK is not installed.
    """
    sitk = require_itk()
    whole = to_itk(image)
    mask = sitk.Cast(to_itk(Volume(brain[None].astype(np.float32), image.affine)) > 0.5, sitk.sitkUInt8)
    factors = [max(1, round(_COARSE_MM / edge)) for edge in image.spacing_mm]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations(list(_ITERATIONS))
    n4.Execute(sitk.Shrink(whole, factors), sitk.Shrink(mask, factors))
    field = sitk.Exp(n4.GetLogBiasFieldAsImage(whole))
    return Volume(from_itk(sitk.Cast(whole / field, sitk.sitkFloat32)).data, image.affine)
