"""`python -m service.driver SWEEP_ID ATTEMPT`: wiring only. What it prints is the sweep's log."""

from __future__ import annotations

import logging
import os
import sys

from trainables.set_aside import set_aside

with set_aside():
    import ray

    from service import logs
    from service.adapters.clock import SteadyClock
    from service.adapters.sql_store import SqlStore
    from service.domain import SweepState
    from service.driver import tune
    from service.driver.drive import Superseded, drive
    from service.driver.version import await_version
    from service.settings import Settings


def main() -> int:
    """Drives the sweep named on the command line; 0 unless it failed."""
    if len(sys.argv) != 3 or not sys.argv[2].isdecimal():
        sys.stderr.write("usage: python -m service.driver SWEEP_ID ATTEMPT\n")
        return 2
    sweep_id, attempt = sys.argv[1], int(sys.argv[2])
    tune.configure()
    settings = Settings.from_environment()
    trace = os.environ.get("TRACEPARENT", "")
    logs.configure(as_json=settings.json_logs, stream=sys.stdout, text="%(asctime)s %(message)s", traceparent=trace)
    logging.captureWarnings(capture=True)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = SqlStore(settings.database_url, sweeps_root=settings.sweeps_root)
    clock = SteadyClock()
    await_version(sweep_id, store=store, clock=clock)
    ray.init(logging_level=logging.WARNING, log_to_driver=True)
    try:
        state = drive(sweep_id, attempt, store=store, settings=settings, clock=clock)
    except Superseded as error:
        logging.info("ending: %s", error)
        return 0  # with Ray as it is: workers that were ended here would look like trials that failed
    ray.shutdown()
    return 1 if state is SweepState.FAILED else 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # threads that still make data would be waited for
