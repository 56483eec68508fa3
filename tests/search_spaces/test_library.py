"""The shipped spaces and studies, and how little it takes to import them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from search_spaces import default_space, studies, study


def test_the_narrow_resnets_have_their_published_channels() -> None:
    """The default space offers the three narrow networks of the paper."""
    channels = [value for _, value in default_space("narrow_resnet")["model.channels"].extremes()]
    assert channels == [[8, 16, 16, 16], [16, 32, 32, 32], [24, 48, 48, 128]]


def test_studies_are_found_by_name() -> None:
    """Each listed study can be read, and has a name to be swept under."""
    assert "quickstart" in studies()
    assert all(study(name)["name"] for name in studies())


@pytest.mark.parametrize("name", ["nothing", "../narrow_resnet", "", "studies"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    """Names never leave the folder of the package."""
    with pytest.raises(LookupError, match=r"known: .*narrow_resnet"):
        default_space(name)
    with pytest.raises(LookupError, match=r"known: .*quickstart"):
        study(name)


def test_importing_spaces_imports_nothing_heavy() -> None:
    """A client command pays for the standard library and PyYAML only."""
    code = (
        "import sys, search_spaces; print(*{name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"search_spaces", "yaml"} <= set(loaded)
    assert not set(loaded) & {"torch", "numpy", "ray", "optuna", "mlflow", "fastapi", "trainables", "service"}
