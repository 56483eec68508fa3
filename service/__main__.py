"""`sweepserve`, also as `python -m service`."""

from __future__ import annotations

from service.cli.commands import main

if __name__ == "__main__":
    main()
