"""A saved model as an MLflow model folder: our code as source, weights as safetensors, no pickle."""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

import trainables
from trainables.saved_model import load_model

with warnings.catch_warnings(action="ignore"):  # MLflow warns here, of type hints in its own code
    from mlflow.pyfunc import save_model

REQUIREMENTS = ("mlflow", "numba", "numpy", "opencv-python-headless", "pillow", "safetensors", "torch")
"""What loads and runs a saved model, besides the code of `trainables` that goes with it."""


def package(saved: Path, folder: Path, *, run_id: str, model_id: str) -> None:
    """Writes the MLflow model.

    Args:
        saved: folder of a saved model.
        folder: where the MLflow model is written; must not exist.
        run_id: of the MLflow run that made it.
        model_id: of the logged model that it becomes.
    """
    signature = _signature(saved)
    with tempfile.TemporaryDirectory(prefix="sweepserve-code-") as scratch:
        code = Path(scratch) / "trainables.zip"
        _pack(Path(trainables.__file__).parent, code)
        save_model(
            path=str(folder),
            python_model=str(Path(__file__).with_name("mlflow_model.py")),
            artifacts={"model": str(saved)},
            code_paths=[str(code)],
            # A local version such as 2.13.0+cpu is in no index.
            pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
            signature=signature,
            input_example=np.zeros((1, *signature.inputs.inputs[0].shape[1:]), np.uint8),
            mlflow_model=Model(run_id=run_id, model_id=model_id),
        )


def _pack(source: Path, target: Path) -> None:
    """The package as one file, from which Python imports it: MLflow takes and gives files one by one."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(source.rglob("*.py")):
            if "analysis" not in file.parts:
                archive.write(file, file.relative_to(source.parent))


def _signature(saved: Path) -> ModelSignature:
    """Names, types and shapes of what goes in and comes out, from one black image's way through the model."""
    model = load_model(saved)
    channels, height, width = shape = model.preprocessing.input_shape
    outputs = model.outputs([np.zeros((height, width) if channels == 1 else (height, width, channels), np.uint8)])
    tensors = {"outputs": outputs, **model.task.decode(outputs)}
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.uint8), (-1, *shape))]),
        outputs=Schema(
            [TensorSpec(np.dtype(np.float32), (-1, *tensor.shape[1:]), name) for name, tensor in tensors.items()]
        ),
    )
