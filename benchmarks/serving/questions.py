"""What each server is asked, and where in its answer the probability is."""

from __future__ import annotations

import base64
import json
from typing import Any

import cv2
import numpy as np
from serving.servers import NAME

PATHS = {"sweepserve": f"/v1/models/{NAME}/predict", "mlflow": "/invocations"}


def request_for(server: str, side: int) -> tuple[bytes, np.ndarray[Any, Any]]:
    """One request, and its image."""
    image = np.random.default_rng(7).integers(0, 256, (side, side), dtype=np.uint8)
    image = cv2.GaussianBlur(image, (9, 9), 0)
    png = cv2.imencode(".png", image)[1].tobytes()
    document = (
        {"inputs": image[None, None].tolist()} if server == "mlflow" else {"images": [base64.b64encode(png).decode()]}
    )
    body = json.dumps(document).encode()
    head = f"POST {PATHS.get(server, '/predict')} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body, image


def said(server: str, body: bytes) -> float:
    """The probability of "yes"."""
    answer = json.loads(body)["predictions"]
    if server == "mlflow":
        return float(answer["probabilities"][0][1])
    return float(answer[0]["probabilities"]["yes"])
