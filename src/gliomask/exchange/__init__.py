"""Data for other systems: cases in other layouts, and masks as DICOM objects that are filed with their study."""

from gliomask.exchange.convert import Converted, Settings
from gliomask.exchange.dataset import Outcome, convert_dataset, refuse_own_input, restore_ids
from gliomask.exchange.dicom_seg import write_dicom_seg
from gliomask.exchange.outputs import OUTPUT_TYPES, check_outputs, remove_outputs, write_outputs
from gliomask.exchange.rtstruct import write_rtstruct
from gliomask.exchange.segments import SEGMENT_CHOICES, Origin
from gliomask.exchange.splits import SPLITS, patients_on_both_sides, read_splits, rename_splits, splits_of_folds
from gliomask.exchange.targets import TARGETS, choose_convention, get_target

__all__ = [
    "OUTPUT_TYPES",
    "SEGMENT_CHOICES",
    "SPLITS",
    "TARGETS",
    "Converted",
    "Origin",
    "Outcome",
    "Settings",
    "check_outputs",
    "choose_convention",
    "convert_dataset",
    "get_target",
    "patients_on_both_sides",
    "read_splits",
    "refuse_own_input",
    "remove_outputs",
    "rename_splits",
    "restore_ids",
    "splits_of_folds",
    "write_dicom_seg",
    "write_outputs",
    "write_rtstruct",
]
