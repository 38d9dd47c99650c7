"""Data for other systems: cases in other layouts."""

from gliomask.exchange.convert import Converted, Settings
from gliomask.exchange.dataset import Outcome, convert_dataset, refuse_own_input, restore_ids
from gliomask.exchange.splits import SPLITS, patients_on_both_sides, read_splits, rename_splits, splits_of_folds
from gliomask.exchange.targets import TARGETS, choose_convention, get_target

__all__ = [
    "SPLITS",
    "TARGETS",
    "Converted",
    "Outcome",
    "Settings",
    "choose_convention",
    "convert_dataset",
    "get_target",
    "patients_on_both_sides",
    "read_splits",
    "refuse_own_input",
    "rename_splits",
    "restore_ids",
    "splits_of_folds",
]
