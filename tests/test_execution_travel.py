"""What travels to a worker and back is small and pickles with plain pickle, which Dask's own pickling would hide."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest

import gliomask
from gliomask.acquisition.prepare_study import PrepareStudy
from gliomask.acquisition.preprocess import PreprocessSettings
from gliomask.cases import Case, check_case
from gliomask.cli.predict_case import Models, PredictCase, Predicted, Work
from gliomask.errors import InputError
from gliomask.exchange import TARGETS
from gliomask.execution import Where
from gliomask.execution.task import packed, unpacked
from gliomask.inference.openvino_engine import load_openvino_model
from gliomask.inference.record import State, Wanted
from gliomask.inference.windows import Inference
from gliomask.labels import CONVENTIONS
from gliomask.metrics import PROTOCOLS
from gliomask.model.file import SHIPPED, find_model


def travellers() -> Iterator[object]:
    yield from PROTOCOLS.values()
    yield from CONVENTIONS.values()
    yield from TARGETS.values()
    yield Where(workers=2)
    models = Models((None,), (SHIPPED,), ("0",), Inference(), "cpu", "auto", 1)
    yield PredictCase(models, Wanted({"labels": "brats2021", "models": ["0"]}, ("t1c",)), ("t1c",), overwrite=False)
    yield Predicted(Path("a.nii.gz").absolute(), {"WT": 1.0}, 2.0, ("a warning",), {"case": "a"})
    yield PrepareStudy(Path("out").absolute(), PreprocessSettings())


@pytest.mark.parametrize("value", list(travellers()), ids=lambda value: type(value).__name__)
def test_what_travels_arrives_as_it_was_and_is_small(value: object) -> None:
    """Settings, plans, rules and facts."""
    sent = packed(value)
    assert unpacked(sent) == value
    assert len(sent) < 20_000


def test_cases_and_what_is_found_in_them_travel(write_case: Callable[..., Case]) -> None:
    """A case, the work on it, and its report."""
    case = write_case()
    for value in (case, Work(case, Path("a.nii.gz").absolute(), State("predict"))):
        assert unpacked(packed(value)) == value
    assert unpacked(packed(check_case(case))).case == case


def test_a_model_travels_as_its_path() -> None:
    """The weights are read again where it arrives."""
    model = load_openvino_model(find_model(None), SHIPPED, threads=1)
    sent = pickle.dumps(model)
    assert len(sent) < 20_000
    again = pickle.loads(sent)
    assert (again.plan, again.name, again.digest) == (model.plan, model.name, model.digest)


def errors() -> Iterator[type[InputError]]:
    for module in walk_packages(gliomask.__path__, "gliomask."):
        if module.name.split(".")[1] in ("cases", "errors", "execution", "files", "inference"):
            import_module(module.name)
    kinds = [InputError]
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        yield kind


def test_every_error_travels() -> None:
    """Also those whose constructor takes something else than the message."""
    for kind in errors():
        error = kind.__new__(kind, "what is wrong")
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), again.args) == (kind, ("what is wrong",))
