"""The public names of `gliomask`: they are listed, documented, and imported only when they are used."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gliomask


def python(code: str) -> str:
    """Return what a new interpreter prints."""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.strip()


def test_the_names_are_listed_in_order() -> None:
    """`__all__` is sorted, has no duplicates, and is what `dir` returns."""
    assert gliomask.__all__ == sorted(set(gliomask.__all__))
    assert set(gliomask.__all__) == set(gliomask._HOMES)
    assert dir(gliomask) == sorted(gliomask.__all__)
    assert len(gliomask.__all__) <= 21


@pytest.mark.parametrize("name", gliomask.__all__)
def test_each_name_is_there_and_says_what_it_is(name: str) -> None:
    """Each name is a class, function or module of the same name with a docstring."""
    found = getattr(gliomask, name)
    assert inspect.isclass(found) or inspect.isfunction(found) or inspect.ismodule(found)
    assert inspect.getdoc(found)
    assert found.__name__ in (name, f"gliomask.{name}")


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The error is that of any module, so `hasattr` works."""
    with pytest.raises(AttributeError, match="module 'gliomask' has no attribute 'segment'"):
        _ = gliomask.segment
    assert not hasattr(gliomask, "cheese")


def test_type_checkers_see_the_same_names() -> None:
    """The imports for type checkers contain the same names from the same modules."""
    source = inspect.getsource(gliomask).partition("if TYPE_CHECKING:")[2].partition("__version__")[0]
    seen = {}
    for line in source.split("\n"):
        words = line.replace(",", "").split()
        if words:
            _, home, _, *names = words
            seen |= dict.fromkeys(names, home.removeprefix("gliomask").removeprefix("."))
    assert seen == gliomask._HOMES


def test_importing_it_imports_nothing_heavy() -> None:
    """Importing gliomask imports none of its large dependencies."""
    heavy = ("torch", "matplotlib", "nibabel", "numpy", "scipy", "pydantic", "typer")
    assert python(f"import sys, gliomask; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_names_are_functions_in_whichever_order_things_are_imported() -> None:
    """No module has the name of a public function, so importing a module never replaces a function."""
    code = """
import gliomask.training.loop, gliomask.inference.prediction, gliomask.evaluation, gliomask.cli
import gliomask
from gliomask import predict, train, evaluate
print([f"{f.__module__}.{f.__name__}" for f in (gliomask.predict, gliomask.train, gliomask.evaluate)])
print(predict is gliomask.predict, train is gliomask.train, evaluate is gliomask.evaluate)
"""
    assert python(code).splitlines() == [
        "['gliomask.inference.prediction.predict', 'gliomask.training.loop.train', 'gliomask.evaluation.evaluate']",
        "True True True",
    ]


def test_whatever_needs_no_network_runs_without_torch() -> None:
    """Checking, preparing, scoring, drawing, the help of the commands and the list of networks do not need torch."""
    rooms = (
        "labels volume cases inspection metrics evaluation phantom figures networks report cli model.plan model.edit "
        "inference.preprocessing inference.postprocessing inference.loading inference.prediction training.cache "
        "training.cubes training.losses"
    )
    code = f"""
import sys
sys.modules["torch"] = None
from importlib import import_module
for room in {rooms.split()}:
    import_module("gliomask." + room)
print("torch" in sys.modules and sys.modules["torch"] is None, "matplotlib" in sys.modules)
"""
    assert python(code) == "True False"


def test_the_version_is_one() -> None:
    """The version of the package is the version in CITATION.cff."""
    citation = (Path(__file__).parent.parent / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {gliomask.__version__}\n" in citation


def test_the_changelog_dates_the_version_as_the_citation_does() -> None:
    """CHANGELOG.md has a section of the current version, with the date of CITATION.cff, and of each version once."""
    root = Path(__file__).parent.parent
    released = re.search(r'^date-released: "(.+)"$', (root / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    assert released is not None
    sections = re.findall(r"^## \[(.+?)\](?: - (.+))?$", (root / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert sections[0] == ("Unreleased", "")
    assert (gliomask.__version__, released[1]) in sections
    assert len({version for version, _ in sections}) == len(sections)
