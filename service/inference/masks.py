"""Masks of answers as images."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np


def with_png_masks(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The answer with each mask of run lengths as a PNG of 0 and 255, in base64, also of its segments and evolution."""
    return {name: _shown(name, value) for name, value in answer.items()}


def _shown(name: str, value: Any) -> Any:
    if name in ("evolution", "segments"):
        return [with_png_masks(answer) for answer in value]
    return _png(value) if _is_mask(value) else value


def _is_mask(value: Any) -> bool:
    return isinstance(value, Mapping) and value.keys() == {"size", "counts"}


def _png(mask: Mapping[str, Any]) -> str:
    runs = np.asarray(mask["counts"])
    values = np.arange(len(runs)) % 2 * 255  # ground first
    pixels = np.repeat(values.astype(np.uint8), runs).reshape(mask["size"])
    return base64.b64encode(cv2.imencode(".png", pixels)[1].tobytes()).decode()
