"""The documents agree with the code and with each other."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from search_spaces import read_yaml
from service.cli.commands import app
from service.spec import SweepSpec
from trainables.families import FAMILIES
from trainables.outline import outline

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])


def test_reference_is_what_the_code_says() -> None:
    """`make docs` was run after the last change of a setting."""
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    assert (ROOT / "docs" / "reference.md").read_text(encoding="utf-8") == generate.reference()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture of a page is a file of the project."""
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    relative = [link for link in links if "://" not in link]
    assert [link for link in relative if not (page.parent / link).exists()] == []


def test_readme_names_every_command() -> None:
    """A command that README does not show is one that nobody finds."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = typer.main.get_command(app)
    names = commands.list_commands(None)  # type: ignore[attr-defined]
    assert [name for name in names if f"sweepserve {name}" not in readme] == []


def test_the_example_of_a_family_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file passes our own checks; with its import and row, a sweep of its space has a network at every corner."""
    page = (ROOT / "docs" / "adding-a-family.md").read_text(encoding="utf-8")
    file, space, imported, row = re.findall(r"^```(?:python|yaml)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    for check in (["check"], ["format", "--check"]):
        name = "trainables/models/perceptron.py"
        command = [sys.executable, "-m", "ruff", *check, "--no-cache", "--stdin-filename", name, "-"]
        found = subprocess.run(command, input=file, cwd=ROOT, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout + found.stderr
    (path := tmp_path / "perceptron.py").write_text(file)
    spec = importlib.util.spec_from_file_location("trainables.models.perceptron", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    names: dict[str, object] = {}
    exec(imported, names)  # noqa: S102
    for family, config in eval(f"{{{row}}}", names).items():  # noqa: S307
        monkeypatch.setitem(FAMILIES, family, config)  # type: ignore[arg-type]
    document = {"name": "first", "family": "perceptron", "data": {"name": "digits"}, "space": read_yaml(space)}
    sweep = SweepSpec.from_dict(document)
    assert len(corners := sweep.space.corners()) >= 4
    assert all(outline(sweep.trial(corner)).state_dict() for corner in corners)
