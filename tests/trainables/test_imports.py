"""What the library needs to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# The tables and the training, with every third-party distribution out of reach except the four that the library stands
# on (and what those themselves are made of). Only trainable.py, and making data, may ask for another.
PROGRAM = """
import importlib, importlib.abc, importlib.metadata, re, sys

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
for name in ("data.datasets", "families", "training", "checkpoint", "saved_model"):
    importlib.import_module("trainables." + name)
"""


def test_only_torch_numpy_opencv_and_scikit_learn_are_needed() -> None:
    """Models, datasets and training import where nothing else is installed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


TRAIN = """
import sys, tempfile
from pathlib import Path
import torch
from trainables import checkpoint
from trainables.training import Training
from trainables.trial import TrialConfig

small = {"name": "digits", "image_size": 8, "train": 16, "validation": 16, "test": 16}
root = Path(tempfile.mkdtemp())
for optimizer in ("sgd", "adam", "adamw"):
    train = {"optimizer": optimizer, "batch_size": 16, "max_epochs": 2}
    model = {"channels": [1, 1, 1, 1]}
    trial = TrialConfig.from_dict({"family": "narrow_resnet", "model": model, "train": train, "data": small})
    dataset = trial.data.load(root)
    first, second = (Training(trial, dataset, device=torch.device("cpu")) for _ in range(2))
    first.advance()
    second.restore(checkpoint.read(checkpoint.write(root / optimizer, first)))
    second.advance()
assert second.finished, second.finished
assert "torch._dynamo" not in sys.modules
"""


def test_training_imports_nothing_of_torch_compile() -> None:
    """Unless it is asked for: it takes as long as all of torch, and every worker would pay that."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
