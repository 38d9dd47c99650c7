"""Messages about unknown names."""

from __future__ import annotations

import pickle

import pytest

from gliomask.errors import InputError, unknown_name
from gliomask.service.limits import RefusedError


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("unte", "; did you mean 'unet'?"),
        ("UNET", "; did you mean 'unet'?"),
        ("vnte", "; did you mean 'VNet'?"),
        ("something else", ""),
    ],
)
def test_an_unknown_name_is_reported_with_the_nearest_and_all_known_names(name: str, hint: str) -> None:
    """The hint is spelled as the name must be typed; case is ignored; a name unlike all others gets no hint."""
    error = unknown_name("network", name, ["unet", "VNet", "fcn"])
    assert isinstance(error, InputError)
    assert str(error) == f"unknown network {name!r}{hint} (known: VNet, fcn, unet)"


def test_an_error_survives_the_way_to_another_process() -> None:
    """Workers hand their errors back pickled; the text and the kind are kept."""
    error = pickle.loads(pickle.dumps(unknown_name("network", "unte", ["unet"])))
    assert type(error) is InputError
    assert str(error) == "unknown network 'unte'; did you mean 'unet'? (known: unet)"


def test_of_a_long_unknown_name_the_beginning_is_shown() -> None:
    """A name of thousands of characters, which a damaged file may hold, does not fill the screen."""
    assert str(unknown_name("loss", "x" * 5000, ["dice"])) == f"unknown loss {'x' * 60 + '...'!r} (known: dice)"


def test_an_error_with_another_constructor_survives_too() -> None:
    """Its facts go along with its text."""
    error = pickle.loads(pickle.dumps(RefusedError(413, "too large", ["a.nii.gz: 3 GB"])))
    assert type(error) is RefusedError
    assert (str(error), error.status, error.problems) == ("too large", 413, ("a.nii.gz: 3 GB",))
