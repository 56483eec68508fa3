"""Our server and those that others would use; each a process: `python -m serving.servers SERVER FOLDER PORT`."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import litserve
import numpy as np

from trainables.saved_model import load_model

NAME = "model"


def serve_sweepserve(folder: Path, port: int) -> None:
    """The real API on a database of its own, with two versions of the model."""
    from service.adapters.clock import SystemClock
    from service.adapters.sql_store import SqlStore
    from service.api.server import serve
    from service.domain import Sweep, SweepState, Trial, TrialState
    from service.settings import Settings
    from service.spec import SweepSpec

    home = folder / "home"
    home.mkdir()
    settings = Settings(home=home, port=port, serving=json.dumps({NAME: {"pinned": True, "max_queue": 100_000}}))
    store, now = SqlStore(settings.database_url), SystemClock().now()
    store.migrate()
    spec = SweepSpec.from_dict({"name": NAME, "family": "narrow_resnet", "data": {"name": "digits"}}).to_dict()
    store.add_sweep(Sweep(id="sweep", name=NAME, spec=spec, created_at=now))
    store.move_sweep("sweep", SweepState.STOPPED, at=now)  # nothing to launch
    for number in range(2):
        trial = Trial(id=f"trial-{number}", sweep_id="sweep", number=number, point={}, created_at=now)
        store.add_trial(trial)
        store.move_trial(trial.id, TrialState.COMPLETED, at=now, values=(0.5,))
        store.add_model_version(
            name=NAME, sweep_id="sweep", trial_id=trial.id, value=0.5, path=str(folder / str(number)), at=now
        )
    store.promote(NAME, 1, at=now)
    store.close()
    serve(settings)


def serve_fastapi(folder: Path, port: int) -> None:
    """What one writes in ten minutes: FastAPI around the eager model."""
    import uvicorn
    from fastapi import Body, FastAPI

    model, app = load_model(folder / "0"), FastAPI()

    @app.post("/predict")
    def predict(images: list[str] = Body(embed=True)) -> Any:  # noqa: B008
        return {"predictions": model.predict([_decoded(text) for text in images])}

    uvicorn.run(app, port=port, log_level="error", access_log=False)


class LitApi(litserve.LitAPI):  # type: ignore[misc]
    """The eager model behind LitServe's queue."""

    folder = Path()

    def setup(self, _: str) -> None:
        """Loads it."""
        self.model = load_model(self.folder / "0")

    def decode_request(self, request, **_: Any) -> Any:  # type: ignore[no-untyped-def]  # or FastAPI reads the annotation
        """The pixels."""
        return _decoded(request["images"][0])

    def batch(self, inputs: list[Any]) -> list[Any]:
        """A list is what it takes."""
        return inputs

    def predict(self, x: list[Any], **_: Any) -> list[Any]:
        """Its answers."""
        return self.model.predict(x)

    def unbatch(self, output: list[Any]) -> list[Any]:
        """One each."""
        return output

    def encode_response(self, output, **_: Any):  # type: ignore[no-untyped-def]
        """As the others answer."""
        return {"predictions": [output]}


def serve_litserve(folder: Path, port: int) -> None:
    """LitServe with its batching."""
    api = LitApi(max_batch_size=32, batch_timeout=0.005)
    api.folder = folder
    litserve.LitServer(api, accelerator="cpu").run(
        host="127.0.0.1", port=port, log_level="error", generate_client_file=False
    )


def serve_mlflow(folder: Path, port: int) -> None:
    """`mlflow models serve` of the model as we log it."""
    from service.adapters.mlflow_package import package

    packaged = folder / "mlflow"
    package(folder / "0", packaged, run_id="0" * 32, model_id="m-" + "0" * 32)
    options = ["-m", str(packaged), "-p", str(port), "--env-manager", "local"]
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # it starts uvicorn by name
    os.execv(sys.executable, [sys.executable, "-m", "mlflow", "models", "serve", *options])  # noqa: S606


def _decoded(text: str) -> Any:
    return cv2.imdecode(np.frombuffer(base64.b64decode(text), np.uint8), cv2.IMREAD_GRAYSCALE)


SERVERS: Mapping[str, Callable[[Path, int], None]] = {
    "fastapi": serve_fastapi, "litserve": serve_litserve, "mlflow": serve_mlflow, "sweepserve": serve_sweepserve
}  # fmt: skip

if __name__ == "__main__":
    SERVERS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
