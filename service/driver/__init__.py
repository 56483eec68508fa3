"""One sweep, run as a Ray job: `python -m service.driver SWEEP_ID ATTEMPT`.

`run.py` knows the sweep and decides; `tune.py` lets Ray Tune carry it out; `recorder.py` tells the store; `drive.py`
ties them together and watches for the end.
"""
