"""Whose examination a case is: patient and time point, told from the case's id or from its folders.

A split must keep all examinations of a patient on one side. The rules err on that side: an id that may name a time
point is taken to do so.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gliomask.cases.layouts import LAYOUTS

BY_ID = "case ids, each a patient of its own"
"""What `describe_patients` calls the cases to which no rule applies."""

BY_FOLDERS = "folders PATIENT/EXAMINATION"

_DATE = r"(?:19|20)\d\d(?P<separator>[-_.]?)(?:0[1-9]|1[0-2])(?P=separator)(?:0[1-9]|[12]\d|3[01])"
# As in the folders of the Cancer Imaging Archive: 06-08-1997-MR-63706.
_DATE_LAST = r"[0-3]\d[-_.][0-3]\d[-_.](?:19|20)\d\d"
_WORDS = (
    r"(?:time[ _-]?point|session|sess?|visit|week|wk|month|day|year|follow[ _-]?up|baseline|(?:pre|post)[ _-]?op\w*"
    r"|intra[ _-]?op\w*|initial|first|second|progression|relapse|recurrent|recurrence)"
)
# These also count patients (`glioma_scan_12`), so they tell a time point only after something with a number.
_SHORT_WORDS = r"(?:time|tp|scan|exam(?:ination)?|study|mri?|fu|bl|pre|post|[tvmwdys](?=\d))"
_NUMBER = r"(?:[ _-]?\d+d?)?(?:[ _-]\d+)?"

# A rule's name and its pattern, which must fit the whole id; the layouts' own patterns are tried before these.
_RULES: tuple[tuple[str, str], ...] = (
    ("MU-Glioma-Post ids", r"(?P<patient>PatientID_\d+)_(?P<timepoint>Timepoint_\d+)"),
    ("TCGA ids", r"(?P<patient>TCGA-\w\w-\w{4})(?:[_.-](?P<timepoint>.+))?"),
    ("ids with the number of an examination", r"(?P<patient>(?:UPENN-GBM|RHUH|UCSD-PTGBM)-\d+)[_-](?P<timepoint>\d+)"),
    ("BraTS ids", r"BraTS[_-](?P<patient>[a-z]{3,4}[_-]\d{4,5})[_-](?P<timepoint>\d{1,3})"),
    ("ids that end in a time point", rf"(?P<patient>.+?)[ _.-]+(?P<timepoint>{_WORDS}{_NUMBER}|{_DATE}|{_DATE_LAST})"),
    ("ids that end in a time point", rf"(?P<patient>.*?\d.*?)[ _.-]+(?P<timepoint>{_SHORT_WORDS}{_NUMBER})"),
    ("ids that end in the number of an examination", r"(?P<patient>[a-z].*\d{3})_(?P<timepoint>\d{1,2})"),
)

_EXAMINATION_FOLDER = re.compile(
    rf"(?:ses-[a-z0-9]+|(?:{_WORDS}|{_SHORT_WORDS}){_NUMBER}|{_DATE}|{_DATE_LAST}(?:[-_ ].*)?)", re.IGNORECASE
)


@dataclass(frozen=True)
class FoundPatient:
    """Whose examination it is, which one, and the rule that told."""

    patient: str
    timepoint: str = ""
    rule: str = ""


class Examination(Protocol):
    """What `describe_patients` needs to know of a case."""

    @property
    def patient(self) -> str: ...

    @property
    def patient_rule(self) -> str: ...


def find_patient(case_id: str) -> FoundPatient:
    """Return the patient and the time point that an id names; the id itself is the patient where no rule applies."""
    layouts = ((layout.patient_rule, layout.id_pattern) for layout in LAYOUTS.values() if layout.id_pattern)
    for rule, pattern in (*layouts, *_RULES):
        if found := re.fullmatch(pattern, case_id, re.IGNORECASE):
            named = found.groupdict()
            return FoundPatient(named["patient"], named.get("timepoint") or "", rule)
    return FoundPatient(case_id)


def names_examination(folder: str) -> bool:
    """Tell whether a folder is named like an examination of a patient, such as `ses-01`, `week-000-1`, `2019-03-04`."""
    return _EXAMINATION_FOLDER.fullmatch(folder) is not None


def describe_patients(cases: Sequence[Examination]) -> str:
    """Return how many examinations of how many patients there are, and by which rules patients were told apart."""
    patients = {case.patient for case in cases}
    rules = Counter(case.patient_rule or BY_ID for case in cases)
    listed = ", ".join(rule if len(rules) == 1 else f"{rule} ({count})" for rule, count in rules.most_common())
    return f"{_counted(len(cases), 'examination')} of {_counted(len(patients), 'patient')}, told apart by {listed}"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
