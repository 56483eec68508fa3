"""A street of coloured boxes: where was the camera, and how was it turned?"""

from trainables.data.synthetic_scene.config import SyntheticScene as SyntheticScene
