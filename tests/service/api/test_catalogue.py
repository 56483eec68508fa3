"""What a sweep may search and learn, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces import SearchSpace
from trainables.data.datasets import DATASETS
from trainables.families import FAMILIES


def test_every_family_is_listed_with_a_line_about_it(service: Any) -> None:
    """The table of families, as it is."""
    listed = service.http.get("/v1/families").json()["families"]
    assert [family["name"] for family in listed] == list(FAMILIES)
    assert all(family["summary"].endswith(".") for family in listed)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_shows_its_settings_and_its_space(service: Any, name: str) -> None:
    """JSON Schemas of what can be set, and the default space in the form in which a spec takes one."""
    family = service.http.get(f"/v1/families/{name}").json()
    assert set(family["model"]["properties"]) == set(FAMILIES[name].field_names())
    assert "learning_rate" in family["train"]["properties"]
    assert SearchSpace.from_dict(family["space"]).to_dict() == family["space"]


def test_an_unknown_family_is_a_404_with_the_nearest_name(service: Any) -> None:
    """A slip of the pen is seen at once."""
    answer = service.http.get("/v1/families/narow_resnet")
    assert answer.status_code == 404
    assert answer.json()["detail"] == "there is no family 'narow_resnet'; did you mean 'narrow_resnet'?"


def test_every_dataset_is_listed_with_its_settings(service: Any) -> None:
    """The table of datasets, as it is."""
    listed = service.http.get("/v1/datasets").json()["datasets"]
    assert [dataset["name"] for dataset in listed] == list(DATASETS)
    assert all(dataset["summary"] and dataset["data"]["type"] == "object" for dataset in listed)
