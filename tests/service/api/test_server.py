"""The API as a process: what it has imported before it takes requests."""

from __future__ import annotations

import subprocess
import sys

FIRST_REQUESTS = """
import sys
from contextlib import suppress
from pathlib import Path
import service.api.server
from search_spaces import studies, study
from service.adapters.memory_store import MemoryStore
from service.errors import InvalidSpec
from service.inference.predictor import settle_libraries
from service.references import settled
from service.spec import SweepSpec
from trainables.saved_model import read_weights

settle_libraries()
before = set(sys.modules)
from service.adapters.optuna_search import Search

for name in studies():
    try:
        document = study(name, small=name != "quickstart")  # which has no `scale`
        spec = settled(SweepSpec.from_dict(document), MemoryStore(), weights_root=Path("/nowhere"))
    except InvalidSpec:  # it starts from another one's model
        continue
    Search(spec).ask()
with suppress(ValueError):
    read_weights(Path("/nowhere"))
heavy = {"torch", "sympy", "optuna", "scipy", "numpy", "safetensors"}
assert not {one for one in set(sys.modules) - before if one.partition(".")[0] in heavy}, set(sys.modules) - before
"""


def test_no_request_imports_libraries() -> None:
    """Studies are checked and searched and weights read with what was there: threads that import meet halfway."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_REQUESTS], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
