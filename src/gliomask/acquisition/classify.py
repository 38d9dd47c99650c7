"""Which sequence a DICOM series is, told from its headers: description, contrast, times, and kind of image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gliomask.acquisition.frames import Frame


@dataclass(frozen=True)
class Header:
    """What the headers of one file say. Its text is only searched for known words, and never shown."""

    patient: str
    """A number that stands for the patient, to tell patients apart."""
    study: str
    series: tuple[str, ...]
    number: int
    when: str
    words: str
    """Descriptions and names of the sequence, in lower case."""
    image_type: tuple[str, ...]
    contrast: bool
    """Whether a contrast agent is named."""
    three_d: bool
    echo_ms: float | None
    repetition_ms: float | None
    inversion_ms: float | None
    b_value: float | None
    frames: tuple[Frame, ...]

    @property
    def original(self) -> bool:
        """Whether the scanner acquired it, rather than a computation on other images."""
        derived = {"DERIVED", "SECONDARY", "MPR", "REFORMATTED", "PROJECTION IMAGE", "MIP"}
        return not derived.intersection(self.image_type)


# Words that stand for something else than the four sequences, and what they stand for. The first that fits counts.
_OTHERS = (
    (
        r"loc\b|locali[sz]er|scout|survey|plan\b|3.?plane|tri.?plan|cal\b|calib|asset",
        "a localizer or calibration",
    ),
    (r"dwi|dti|diff|adc|\btrace|\bb ?\d{3,4}\b|tensor|ivim|\bfa\b|colfa", "diffusion"),
    (r"perf|\bdsc\b|\bdce\b|cbv|cbf|\bmtt\b|\bttp\b|\basl\b|pcasl|dynamic", "perfusion"),
    (r"swi|swan|\bmip|minip|venous|haemo|hemo|t2.?star|t2\*|\bpha\b|phase", "susceptibility"),
    (r"mra\b|\btof\b|angio|\bmrv\b", "angiography"),
    (r"spect|\bsvs\b|\bcsi\b|mrs\b", "spectroscopy"),
    (r"fmri|bold|rest(ing)?.?state", "functional"),
    (r"subtr|\bsub\b", "a subtraction"),
    (r"track|bolus|smart.?prep", "bolus tracking"),
    (r"ciss|fiesta|\bpd\b|proton", "another contrast"),
)
_FLAIR = r"flair|tirm|dark.?fl|da.?fl"
_T1 = r"\bt1|t1w|mp.?rage|mprage|spgr|bravo|\btfl\b|vibe|\btfe\b|mp2rage|3d.?t1"
_T2 = r"\bt2|t2w"
_AFTER = r"\+ ?c\b|c\+|\bgd\b|gado|gad\b|post|\bce\b|\bkm\b|contrast|kontrast|enhanced|\bpc\b|t1c|t1gd|t1ce"
_BEFORE = r"\bpre|native?\b|nativ|without|\bwo\b|w/o|non.?contrast|no.?contrast|unenhanced|ohne"


def classify_header(header: Header) -> tuple[str | None, str]:
    """Return the sequence of a series (`t1n t1c t2w t2f` or None for any other), and the reason in plain words."""
    words = re.sub(r"[_^/.]+", " ", header.words)
    if other := _other(header, words):
        return None, other
    flair = re.search(_FLAIR, words)
    if re.search(_T1, words):
        return _t1(header, words, "T1 by its description")
    if flair:
        return _checked(header, "t2f", "FLAIR by its description")
    if re.search(_T2, words):
        flair_times = _looks_like_flair(header)
        return ("t2f", "T2 with the inversion time of a FLAIR") if flair_times else ("t2w", "T2 by its description")
    return _by_times(header, words)


def _other(header: Header, words: str) -> str | None:
    """What a series is that is none of the four sequences, by what is said of it."""
    if header.b_value:
        return "diffusion (a b-value is given)"
    if "SUBTRACT" in " ".join(header.image_type):
        return "a subtraction"
    if {"PROJECTION IMAGE", "MIP"}.intersection(header.image_type):
        return "a projection"
    return next((f"{what}, by its description" for pattern, what in _OTHERS if re.search(pattern, words)), None)


def _checked(header: Header, modality: str, reason: str) -> tuple[str, str]:
    short = header.echo_ms is not None and header.echo_ms < 40
    return modality, f"{reason}, though its echo time of {header.echo_ms:.0f} ms is not one's" if short else reason


def _t1(header: Header, words: str, reason: str) -> tuple[str, str]:
    if re.search(_BEFORE, words):
        return "t1n", f"{reason}, before contrast"
    if re.search(_AFTER, words):
        return "t1c", f"{reason}, after contrast"
    if header.contrast:
        return "t1c", f"{reason}, a contrast agent is named"
    return "t1n", f"{reason}, no contrast agent is named"


def _looks_like_flair(header: Header) -> bool:
    inversion, echo = header.inversion_ms or 0, header.echo_ms or 0
    return 1500 <= inversion <= 3000 and echo >= 60


def _by_times(header: Header, words: str) -> tuple[str | None, str]:
    """Where no word tells: the times of the pulse sequence."""
    echo, repetition = header.echo_ms, header.repetition_ms
    if echo is None or repetition is None:
        return None, "neither its description nor its times tell the sequence"
    times = f"TR {repetition:.0f} ms, TE {echo:.0f} ms"
    if _looks_like_flair(header):
        return "t2f", f"FLAIR by its times ({times}, TI {header.inversion_ms:.0f} ms)"
    if echo >= 70 and repetition >= 2000:
        return "t2w", f"T2 by its times ({times})"
    if echo <= 30 and repetition <= 3000:
        return _t1(header, words, f"T1 by its times ({times})")
    return None, f"its times are those of none of the four sequences ({times})"
