"""The documents agree with the code and with each other."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import typer.main

from service.cli.commands import app

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
