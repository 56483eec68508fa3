"""Pathfinder: do the two discs lie on the ends of one dashed path?"""

from trainables.data.pathfinder.config import Pathfinder as Pathfinder
