"""Cases: any BraTS year, MSD, nnU-Net or plain folders -> [Case], read as they lie."""

from gliomask.cases.case import MODALITIES, SEQUENCE_NAMES, SHOWN_FIRST, Case, Source, get_modality
from gliomask.cases.check import CaseReport, check_case
from gliomask.cases.find import Problem, Survey, case_of_files, classify, dataset_convention, find_cases, survey
from gliomask.cases.layouts import LAYOUTS, Layout, candidates_of, get_layout, layout_of
from gliomask.cases.read import common_convention, read_case, read_mask, resolve_conventions

__all__ = [
    "LAYOUTS",
    "MODALITIES",
    "SEQUENCE_NAMES",
    "SHOWN_FIRST",
    "Case",
    "CaseReport",
    "Layout",
    "Problem",
    "Source",
    "Survey",
    "candidates_of",
    "case_of_files",
    "check_case",
    "classify",
    "common_convention",
    "dataset_convention",
    "find_cases",
    "get_layout",
    "get_modality",
    "layout_of",
    "read_case",
    "read_mask",
    "resolve_conventions",
    "survey",
]
