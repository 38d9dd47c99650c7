"""Which sequence a DICOM series is, told from its headers: description, contrast, times, and kind of image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gliomask.acquisition.frames import Frame

BEFORE = "before contrast"
"""In the reason for a series that is said to be without contrast."""


@dataclass(frozen=True)
class Header:
    """What the headers of one file say. Its text is only searched for known words, and never shown."""

    patient: str
    """A number that stands for the patient, to tell patients apart."""
    patient_id: str
    """A number that stands for the patient's id alone, or the name where there is no id; empty without both."""
    study: str
    series: tuple[str, ...]
    number: int
    when: str
    began: float | None
    """Seconds at which the acquisition began, or its series; for comparisons within an examination."""
    words: str
    """Descriptions and names of the sequence, in lower case."""
    own: str
    """The same without the protocol's name, which may be that of the whole examination."""
    title: str
    """The series' description alone, in lower case."""
    description: str
    """The known words of the series' description; see `known_words`."""
    alias: str
    """A digest of the series' description as it stands; see `alias_of`."""
    image_type: tuple[str, ...]
    contrast: bool
    """Whether a contrast agent is named."""
    three_d: bool
    burnt_in: bool
    """Whether text is burnt into the pixels, or they are in colour."""
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
        r"\bloc\b|locali[sz]er|scout|survey|\d.?plane\b|tri.?plan|\bcal\b|calib|^ *asset|shim",
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
    (r"spine|spinal|lumbar|cervical|thorac|orbit|\biac\b|pituitary|\bneck\b", "another part of the body"),
)
# Kinds of image, by the header's image type.
_OTHER_TYPES = (
    ({"SUBTRACT", "SUBTRACTION"}, "a subtraction"),
    ({"PROJECTION IMAGE", "MIP", "MNIP"}, "a projection"),
    ({"ADC", "TRACEW", "DIFFUSION", "FA", "TENSOR", "B0"}, "diffusion"),
    ({"PERFUSION", "ASL", "CBV", "CBF", "RELCBV", "RELCBF", "RELMTT", "MTT", "TTP"}, "perfusion"),
    ({"PHASE MAP", "PHASE", "P"}, "a phase image"),
    ({"LOCALIZER"}, "a localizer"),
)
_FLAIR = r"flair|tirm|dark.?fl|da.?fl"
_T1 = r"\bs?t1|t1w|mp.?rage|mprage|spgr|bravo|\btfl\b|vibe|\btfe\b|mp2rage|3d.?t1"
_T2 = r"\bt2|t2w"
# What is said of both, as of a whole examination, tells nothing of one series: with and without, w/wo, pre/post.
_WITH, _WITHOUT = r"(?:with|w|mit|con|avec)\b/?", r"(?:without|w/?o|ohne|sin|sans|senza)\b/?"
_AND = r"[ ,]*(?:and|und|et|e|y|&|\+|/|-)?[ ,]*"
_BOTH = re.compile(
    rf"\b(?:{_WITH}{_AND}{_WITHOUT}|{_WITHOUT}{_AND}{_WITH}|wwo\b|pre{_AND}post\b|vor{_AND}nach\b)"
    r"(?:\W*(?:i\W?v\b|contrast\w*|kontrast\w*|gad\w*|gd\b|km\b))*"
)
_AGENT = r"(?:i\W?v\W*)?(?:contrast|kontrast|gad|gd\b|km\b|mdc\b)"
_AFTER = (
    r"\+ ?c\b|c\+|\bgd\b|gado|gad\b|post(?!.?op|erior|.?sur|.?proc)|\bce\b|\bm?km\b|\bmdc\b|contrast|kontrast|enhanced|"
    r"\bpc\b|t1c|t1gd|t1ce|\bnach\b(?!.?op)|\bapr[eè]s\b(?!.?op)|\bdopo\b|\bcon\b"
)
# Not: without fat, which many descriptions say of images with contrast.
_BEFORE = (
    r"\bpre(?!.?op|.?sur|.?scan|.?sat)|native?\b|nativ|unenhanced|\bnon.?enh|\bvor\b(?!.?op)|"
    rf"\bno[nt]?\W*{_AGENT}|\bo *{_AGENT}|(?:without|\bwo\b|w/o|ohne|\b(?:sans|sin|senza)\b)(?!\W*(?:fat|fett|fs\b))"
)
# An echo this short shows proton density or T2* rather than T2.
_SHORTEST_T2_MS = 40

# The words of a description that are shown: whatever else stands there may name a patient.
_WORDS = (
    "t1 t1w st1w t1c t1ce t1gd t2 t2w t2f flair tirm stir mprage mp rage mp2rage spgr fspgr bravo tfl tfe ffe vibe "
    "space cube vista se tse fse frfse propeller blade gre fl2d fl3d fl 2d 3d ax axial tra trans transversal sag "
    "sagittal cor coronal obl iso mpr post pre gd gad gado km contrast kontrast native nativ with without ohne mit c "
    "+c ce pc enhanced fs fatsat fat sat dark fluid dixon pd dwi dti adc diff trace perf perfusion ep2d dsc dce cbv "
    "cbf swi swan mip minip tof mra loc localizer scout survey plane sub subtraction bold fmri brain head neuro longtr "
    "spine orbit neck ir thin noncontrast contraste contrasto gadolinium unenhanced precontrast postcontrast mdc and"
)
_SHOWN = frozenset(_WORDS.split())
# Small words may be names too, and are shown only where contrast follows.
_SMALL = r"\b(?:w|wo|o|m|no|non|not|vor|nach|sans|sin|senza|con|avec|apr[eè]s|dopo)\b"
_SHOWN_OR_NOT = re.compile(rf"\bw/(?:w?o\b)?|{_SMALL}(?=\W*{_AGENT})|(?P<word>\+?[a-z0-9]+)")


def known_words(description: str) -> str:
    """Return the words of a description that are those of radiology, in lower case; all other text is left out."""
    found = _SHOWN_OR_NOT.finditer(re.sub(r"[_^]", " ", description.lower()))
    return " ".join(match.group() for match in found if match["word"] is None or match["word"] in _SHOWN)


def alias_of(text: str) -> str:
    """Return a digest by which a text is recognised and which does not show it; case and spaces do not count."""
    return sha256(" ".join(text.lower().split()).encode()).hexdigest()


def classify_header(header: Header) -> tuple[str | None, str]:
    """Return the sequence of a series (`t1n t1c t2w t2f` or None for any other), and the reason in plain words."""
    words, title = _spaced(header.words), _spaced(header.title)
    # A protocol of a whole examination, such as BRAIN T1 T2 PERFUSION, tells nothing of a series that says what it is.
    is_named = re.search(f"{_T1}|{_FLAIR}|{_T2}", title)
    named = title if is_named else words
    if other := _other(header, _spaced(header.own) if is_named else words):
        return None, other
    if re.search(_T1, named):
        return _t1(header, words, "T1 by its description")
    if re.search(_FLAIR, named):
        return _checked(header, "t2f", "FLAIR by its description")
    if re.search(_T2, named):
        return _t2(header)
    return _by_times(header, words)


def _spaced(text: str) -> str:
    """A text with spaces for what stands between words, except the stroke of `w/o`."""
    return re.sub(r"[_^.]+", " ", text)


def _other(header: Header, words: str) -> str | None:
    """What a series is that is none of the four sequences, by what is said of it."""
    if header.burnt_in:
        return "text or colour is burnt into its pixels"
    if header.b_value:
        return "diffusion (a b-value is given)"
    for types, what in _OTHER_TYPES:
        if types.intersection(header.image_type):
            return f"{what}, by its image type"
    return next((f"{what}, by its description" for pattern, what in _OTHERS if re.search(pattern, words)), None)


def _checked(header: Header, modality: str, reason: str) -> tuple[str, str]:
    short = header.echo_ms is not None and header.echo_ms < _SHORTEST_T2_MS
    return modality, f"{reason}, though its echo time of {header.echo_ms:.0f} ms is not one's" if short else reason


def _t1(header: Header, words: str, reason: str) -> tuple[str, str]:
    # The protocol's name may be that of the whole examination: it counts only where the description is silent.
    for text, where in ((_spaced(header.title), ""), (words, " by another name in its header")):
        text = _BOTH.sub(" ", text)
        if re.search(_BEFORE, text):
            return "t1n", f"{reason}, {BEFORE}{where}"
        if re.search(_AFTER, text):
            return "t1c", f"{reason}, after contrast{where}"
    if header.contrast:
        return "t1c", f"{reason}, a contrast agent is named"
    return "t1n", f"{reason}, no contrast agent is named"


def _t2(header: Header) -> tuple[str | None, str]:
    if _looks_like_flair(header):
        return "t2f", "T2 with the inversion time of a FLAIR"
    if header.echo_ms is not None and 0 < header.echo_ms < _SHORTEST_T2_MS:
        return None, f"T2 by its description, but with an echo time of {header.echo_ms:.0f} ms it shows other contrast"
    return "t2w", "T2 by its description"


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
