"""Cluttered ABC: do the two rings lie on one letter?"""

from trainables.data.cabc.config import ClutteredABC as ClutteredABC
