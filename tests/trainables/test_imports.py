"""What the library needs to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Everything of the library, with every third-party distribution out of reach except the four it stands on (and what
# those themselves are made of); only trainable.py may ask for another.
PROGRAM = """
import importlib, importlib.abc, importlib.metadata, pkgutil, re, sys

allowed = set()
names = ["torch", "numpy", "opencv-python-headless", "scikit-learn"]
while names:
    name = re.sub("[-_.]+", "-", names.pop()).lower()
    if name not in allowed:
        allowed.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        names += [re.match("[A-Za-z0-9._-]+", need)[0] for need in needs if "extra ==" not in need]
blocked = {
    module
    for module, owners in importlib.metadata.packages_distributions().items()
    if not allowed & {re.sub("[-_.]+", "-", owner).lower() for owner in owners}
}
blocked -= {"trainables"}
assert {"ray", "safetensors", "yaml", "optuna"} <= blocked, blocked

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not one of the four", name=name)
        return None

sys.meta_path.insert(0, Block())
import trainables
for module in pkgutil.walk_packages(trainables.__path__, "trainables."):
    if module.name != "trainables.trainable":
        importlib.import_module(module.name)
        print(module.name)
"""


def test_only_torch_numpy_opencv_and_scikit_learn_are_needed() -> None:
    """Every module but the one for Ray imports where nothing else is installed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert {"trainables.training", "trainables.checkpoint", "trainables.saved_model"} <= set(done.stdout.split())
