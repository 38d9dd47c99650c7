"""Cases: examinations found and read as they were downloaded, from any BraTS year, MSD, nnU-Net or plain folders."""

from gliomask.cases.case import MODALITIES, SEQUENCE_NAMES, SHOWN_FIRST, Case, Problem, Source, get_modality
from gliomask.cases.check import CaseReport, check_case
from gliomask.cases.conventions import common_convention, resolve_conventions
from gliomask.cases.dataset import dataset_convention
from gliomask.cases.find import NoCaseError, case_of_files, find_cases, survey
from gliomask.cases.folders import is_system_folder
from gliomask.cases.layouts import LAYOUTS, Layout, candidates_of, get_layout, layout_of
from gliomask.cases.listed import Survey
from gliomask.cases.lists import survey_masks
from gliomask.cases.naming import classify
from gliomask.cases.patients import describe_patients, find_patient
from gliomask.cases.read import mask_on_grid, merge_notes, read_case, read_channels, read_mask
from gliomask.cases.staging import staged, staged_masks
from gliomask.cases.tables import is_table, names_cases, refuse_list, table_folds

__all__ = [
    "LAYOUTS",
    "MODALITIES",
    "SEQUENCE_NAMES",
    "SHOWN_FIRST",
    "Case",
    "CaseReport",
    "Layout",
    "NoCaseError",
    "Problem",
    "Source",
    "Survey",
    "candidates_of",
    "case_of_files",
    "check_case",
    "classify",
    "common_convention",
    "dataset_convention",
    "describe_patients",
    "find_cases",
    "find_patient",
    "get_layout",
    "get_modality",
    "is_system_folder",
    "is_table",
    "layout_of",
    "mask_on_grid",
    "merge_notes",
    "names_cases",
    "read_case",
    "read_channels",
    "read_mask",
    "refuse_list",
    "resolve_conventions",
    "staged",
    "staged_masks",
    "survey",
    "survey_masks",
    "table_folds",
]
