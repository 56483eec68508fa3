"""Verbs over HTTP, through the client and on the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.adapters.memory_store import MemoryStore
from service.client import Client, ClientError
from service.domain import Sweep, SweepState, TrialState

VERBS = {
    "stop": "stopping",
    "cancel": "cancelling",
    "pause": "pausing",
}


@pytest.mark.parametrize(("verb", "state"), VERBS.items())
def test_a_running_sweep_is_asked_to_end(service: Any, verb: str, state: str) -> None:
    """202 with the sweep as it is then; again changes nothing."""
    sweep = service.running()
    for _ in range(2):
        answer = service.http.post(f"/v1/sweeps/{sweep.id}/{verb}")
        assert (answer.status_code, answer.json()["state"]) == (202, state)


@pytest.mark.parametrize("verb", ["stop", "cancel", "pause", "retry"])
def test_a_verb_that_the_state_does_not_allow_is_a_409(service: Any, verb: str) -> None:
    """And the answer says what it is; a sweep that is not there is a 404."""
    sweep = service.running()
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    answer = service.http.post(f"/v1/sweeps/{sweep.id}/{verb}")
    assert answer.status_code == 409
    assert f"sweep {sweep.id} " in answer.json()["detail"]
    assert service.http.post(f"/v1/sweeps/nonesuch/{verb}").status_code == 404


def test_a_sweep_goes_on_through_the_client(service: Any) -> None:
    """Paused, resumed, stopped, extended, retried."""
    client = Client("http://127.0.0.1", transport=service.transport)
    sweep = service.sweep(stop={"time_budget": "1h"})
    assert client.pause(sweep.id)["state"] == "paused"
    assert client.resume(sweep.id)["state"] == "queued"
    assert client.cancel(sweep.id)["state"] == "stopped"
    extended = client.extend(sweep.id, trials=9, time_budget="2h")
    assert (extended["state"], extended["spec"]["search"]["trials"]) == ("queued", 9)
    trial = service.trial(sweep, 0)
    service.store.move_trial(trial.id, TrialState.FAILED, at=service.clock.now())
    assert client.stop(sweep.id)["state"] == "stopped"
    retried = client.retry(sweep.id)
    assert (retried["state"], retried["counts"]) == ("queued", {"paused": 1})
    with pytest.raises(ClientError, match="1 fault") as raised:
        client.extend(sweep.id)
    assert raised.value.status == 422


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"trial": 9}, "/trial"),
        ({"trials": "9"}, "/trials"),
        ({"trials": True}, "/trials"),
        ([], ""),
        ({"trials": 1}, "/trials"),
    ],
)
def test_an_extension_that_is_none_is_a_422(service: Any, body: Any, pointer: str) -> None:
    """With a pointer to what is wrong."""
    answer = service.http.post(f"/v1/sweeps/{service.sweep().id}/extend", json=body)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


def test_a_deleted_sweep_goes_with_its_files_and_runs(service: Any) -> None:
    """Not while it runs, and not before the tracker has forgotten it."""
    sweep = service.running()
    assert service.http.delete(f"/v1/sweeps/{sweep.id}").status_code == 409
    service.store.move_sweep(sweep.id, SweepState.COMPLETED, at=service.clock.now())
    service.tracker.track(service.store.sweep(sweep.id), service.store.events(sweep.id))
    folder = service.settings.sweeps_root / sweep.id / "trials"
    folder.mkdir(parents=True)
    assert service.http.delete(f"/v1/sweeps/{sweep.id}").json()["state"] == "deleting"
    track = next(loop for loop in service.app.state.parts.loops if loop.name == "tracker")
    service.tracker.down = True
    with pytest.raises(Exception, match="the tracker does not answer"):
        track.step()
    assert folder.exists()
    service.tracker.down = False
    track.step()
    assert not folder.parent.exists()
    assert service.http.get(f"/v1/sweeps/{sweep.id}").status_code == 404
    assert service.tracker.shown(sweep.id) == []
    assert service.http.delete(f"/v1/sweeps/{sweep.id}").status_code == 404


def test_a_deletion_that_is_done_at_once_is_answered(make_service: Any) -> None:
    """The sweep may be gone before the answer is made; it is still the one that was deleted."""

    class Swift(MemoryStore):
        def move_sweep(self, sweep_id: str, state: SweepState, **rest: Any) -> Sweep:
            moved = super().move_sweep(sweep_id, state, **rest)
            if state is SweepState.DELETING:
                self.delete_sweep(sweep_id)
            return moved

    service = make_service(Swift())
    sweep = service.sweep()
    service.trial(sweep, 0, value=0.5)
    answer = service.http.delete(f"/v1/sweeps/{sweep.id}")
    assert answer.status_code == 202
    shown = answer.json()
    assert (shown["id"], shown["state"], shown["reason"]) == (sweep.id, "deleting", "deleted on request")
    assert (shown["counts"], shown["waiting"], shown["spec"]) == ({"completed": 1}, "", sweep.spec)


def test_a_sweep_that_cannot_be_removed_does_not_hold_up_the_others(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else's file is in its folder, say."""

    def refuse(folder: Path) -> None:
        raise PermissionError(f"not yours: {folder}")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    removed, other = service.running(), service.sweep()
    service.store.move_sweep(removed.id, SweepState.COMPLETED, at=service.clock.now())
    service.store.move_sweep(removed.id, SweepState.DELETING, at=service.clock.now())
    track = next(loop for loop in service.app.state.parts.loops if loop.name == "tracker")
    with pytest.raises(Exception, match="not yours"):
        track.step()
    assert len(service.tracker.shown(other.id)) > 0


def test_of_two_apps_over_one_store_one_acts(make_service: Any) -> None:
    """The other one answers, and leaves launching and tracking to it."""
    first = make_service()
    second = make_service(first.store)
    first.sweep()
    for service in (first, second):
        for loop in service.app.state.parts.loops:
            loop.step()
    assert (len(first.launcher.launches), len(second.launcher.launches)) == (1, 0)
