"""The shipped spaces and studies, and how little it takes to import them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from search_spaces import default_space, studies, study


def test_the_default_space_of_narrow_resnets_has_the_papers_two_smaller_ones() -> None:
    """Widths from half of nRN18, which is snRN18, to four times it, which are the first channels of RN18."""
    (_, low), (_, high) = default_space("narrow_resnet")["model.width"].extremes()
    assert low <= 0.5 < 1 < 4 <= high


@pytest.mark.parametrize("rule", ["bptt", "c_bptt", "rbp", "c_rbp"])
def test_every_learning_rule_of_contour_networks_is_tuned_in_all_that_it_uses(rule: str) -> None:
    """Neumann terms of both recurrent back-propagations, the penalty of both rules that have one."""
    searched = default_space("contour_rnn").given({"model.rule": rule}).keys()
    assert ("model.neumann_terms" in searched) == rule.endswith("rbp")
    assert {f"model.penalty.{name}" in searched for name in ("threshold", "weight", "reduction")} == {rule[:2] == "c_"}


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
