"""A saved model as MLflow runs it (models from code): MLflow executes this file where it loads the model.

In: uint8 images `[n, c, h, w]`, of the size that the model was trained on. Out: `outputs` float32 `[n, k]` (what the
network gives) and what they mean, as the model's task decodes them: `probabilities` float32 `[n, classes]`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

if (
    code := Path(__file__).parent / "code" / "trainables.zip"
).is_file():  # that of the model, not of where it is loaded
    sys.path.insert(0, str(code))

from trainables.saved_model import load_model


@final
class ImageModel(PythonModel):  # type: ignore[misc]  # MLflow's annotations are not read
    """The saved model in the artifact `model`."""

    def load_context(self, context: PythonModelContext) -> None:
        """Loads the weights."""
        self._model = load_model(Path(context.artifacts["model"]))

    def predict(
        self,
        context: PythonModelContext,  # noqa: ARG002 - MLflow's signature
        model_input: np.ndarray,  # MLflow knows this annotation, and no finer one
        params: dict[str, Any] | None = None,  # noqa: ARG002
    ) -> dict[str, npt.NDArray[np.float32]]:
        """Outputs of any number of images, and what they mean."""
        images = [image[0] if len(image) == 1 else image.transpose(1, 2, 0) for image in model_input]
        outputs = self._model.outputs(images)
        tensors = {"outputs": outputs.float(), **self._model.task.decode(outputs)}
        return {name: tensor.numpy() for name, tensor in tensors.items()}


set_model(ImageModel())
