"""What a model that is logged to MLflow asks of who loads it."""

from __future__ import annotations

import ast
from importlib.metadata import packages_distributions
from pathlib import Path

import trainables
from service.adapters.mlflow_package import REQUIREMENTS


def test_requirements_are_what_the_code_imports() -> None:
    """The logged model asks pip for every package that a model needs of `trainables`, and for no other."""
    root = Path(trainables.__file__).parent
    imported = {"mlflow"}
    for file in root.rglob("*.py"):
        if file.name != "trainable.py" and file.parent.name != "analysis":
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module:
                    imported.add(node.module.split(".")[0])
    distributions = packages_distributions()
    third_party = [set(distributions[name]) for name in imported - {"trainables"} if name in distributions]
    assert [names for names in third_party if not names & set(REQUIREMENTS)] == []
    assert set(REQUIREMENTS) <= set().union(*third_party)
