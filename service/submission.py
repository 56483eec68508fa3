"""Making sweeps: from a spec, a packaged study or another sweep, and only once for each idempotency key."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, final

from search_spaces import SearchSpace, merged, studies, study
from service import trace
from service.domain import Sweep
from service.errors import Conflict, InvalidSpec, KeyReused, NotFound, Unavailable
from service.port_values import Claim
from service.ports import Clock, Launcher, Store
from service.references import settled
from service.spec import SweepSpec
from trainables.config import Fault, nearest, shown

logger = logging.getLogger(__name__)

REMEMBERED = timedelta(hours=24)
"""How long an idempotency key stands for its sweep."""
UNDER_WAY = timedelta(seconds=30)
"""A request that took its key so long ago and made no sweep has died; another one with the key makes it."""


def new_sweep_id() -> str:
    """Eight characters of lower-case base32, at random."""
    return base64.b32encode(secrets.token_bytes(5)).decode().lower()


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Submissions:
    """Where sweeps are handed in."""

    store: Store
    """Keeps them; what a spec refers to is looked up there."""
    clock: Clock
    weights_root: Path
    """Where weights are that trials may start from by a path."""
    cluster: Launcher | None = None
    """Must have a node that can hold a trial, as far as it answers and has nodes; None: anything may come."""
    new_id: Callable[[], str] = new_sweep_id

    def checked(self, document: Any) -> SweepSpec:
        """The spec that a document describes: as it is, or `{"study": name, "scaled": true}` for a packaged one.

        Raises:
            InvalidSpec: with every fault of the document, or because no node of the cluster can hold a trial.
        """
        if isinstance(document, dict) and "study" in document:
            document = _packaged(document)
        spec = settled(SweepSpec.from_dict(document), self.store, weights_root=self.weights_root)
        nodes = _nodes(self.cluster)
        misfit = spec.resources.misfit(nodes) if nodes else None  # a cluster without nodes is one that is starting
        if misfit is not None:
            raise InvalidSpec([Fault(("resources",), f"{misfit}; the cluster has {_described(nodes)}")])
        return spec

    def create(self, document: Any, *, key: str | None = None) -> Sweep:
        """Queues the sweep that a document describes, which the reconciler launches.

        Args:
            document: as for `checked`.
            key: the caller's idempotency key: the first request with it makes the sweep, the next ones are given it.

        Raises:
            InvalidSpec: as by `checked`.
            KeyReused: the key came with another document before.
            Conflict: the first request with this key is under way.
        """
        return self._once(document, lambda: document, key)

    def clone(self, sweep_id: str, changes: Any, *, key: str | None = None) -> Sweep:
        """Queues a new sweep with another one's spec, changed by a JSON merge patch (RFC 7386). Raises as `create`.

        Where that one tries a grid whole, a new one with a grid does so too, unless the patch has a number of trials.
        """

        def document() -> Any:
            spec = self.store.sweep(sweep_id).spec
            if not isinstance(changes, Mapping):
                raise InvalidSpec([Fault((), f"need a mapping of changes to the spec, got {shown(changes)}")])
            return _changed(spec, changes)

        return self._once({"clone": sweep_id, "changes": changes}, document, key)

    def _once(self, request: Any, document: Callable[[], Any], key: str | None) -> Sweep:
        """The sweep that the same request made before with this key, else one of the document.

        The answer to an earlier request does not depend on what has become of all that it referred to: so the document
        is made and checked only where there is no such sweep.
        """
        made = None if key is None else _made(self.store, key, request, now=self.clock.now())
        if made is not None:
            return made
        spec = self.checked(document())
        sweep = Sweep(
            id=self.new_id(),
            name=spec.name,
            spec=spec.to_dict(),
            created_at=self.clock.now(),
            trace=trace.current(),
        )
        if key is not None:
            claim = _claim(self.store, sweep, key, request)
            if claim.sweep_id != sweep.id:
                return _claimed(self.store, sweep, claim)
        self.store.add_sweep(sweep)
        return self.store.sweep(sweep.id)


def _changed(spec: Mapping[str, Any], changes: Mapping[str, Any]) -> Any:
    """A sweep's spec, changed; without its number of trials where that is just its grid's: another grid has its own."""
    changed, search = merged(spec, changes), spec["search"]
    if _has_grid(spec) and _has_grid(changed):
        points = SearchSpace.from_dict(spec["space"]).grid()
        if sum(1 for _ in islice(points, search["trials"] + 1)) == search["trials"]:
            search = {name: value for name, value in search.items() if name != "trials"}
            return merged({**spec, "search": search}, changes)
    return changed


def _has_grid(spec: Mapping[str, Any]) -> bool:
    search = spec.get("search")
    return isinstance(search, Mapping) and search.get("sampler") == "grid"


def _packaged(document: Mapping[str, Any]) -> dict[str, Any]:
    known = ("study", "scaled")
    faults = [Fault((key,), f"unknown key {shown(key)}; {nearest(key, known)}") for key in document if key not in known]
    name, scaled = document["study"], document.get("scaled", False)
    if name not in studies():
        faults.append(Fault(("study",), f"unknown study {shown(name)}; {nearest(str(name), studies())}"))
    if not isinstance(scaled, bool):
        faults.append(Fault(("scaled",), f"need true or false, got {shown(scaled)}"))
    if faults:
        raise InvalidSpec(faults)
    try:
        return study(name, small=scaled)
    except ValueError as error:
        raise InvalidSpec([Fault(("scaled",), str(error))]) from error


def _nodes(cluster: Launcher | None) -> Sequence[Mapping[str, float]]:
    try:
        return cluster.nodes() if cluster is not None else []
    except Unavailable as error:
        logger.info("taking a sweep unseen, its driver will tell whether its trials fit: %s", error)
        return []


def _described(nodes: Sequence[Mapping[str, float]]) -> str:
    kinds = Counter(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
    return ", ".join(f"{count} node{'s' * (count > 1)} with {kind}" for kind, count in kinds.items())


def _made(store: Store, key: str, request: Any, *, now: datetime) -> Sweep | None:
    """The sweep that the same request made before with this key; None: there is none, or none yet."""
    claim = store.claimed(_digest(key), since=now - REMEMBERED)
    if claim is None:
        return None
    _check(claim, _fingerprint(request))
    try:
        return store.sweep(claim.sweep_id)
    except NotFound:
        return None


def _claim(store: Store, sweep: Sweep, key: str, request: Any) -> Claim:
    """The claim that holds for the key; it is this request's own if it names `sweep`."""
    own = Claim(key=_digest(key), fingerprint=_fingerprint(request), sweep_id=sweep.id, at=sweep.created_at)
    claim = store.claim(own, expired_before=own.at - REMEMBERED)
    _check(claim, own.fingerprint)
    return claim


def _check(claim: Claim, fingerprint: str) -> None:
    if claim.fingerprint != fingerprint:
        raise KeyReused("this Idempotency-Key came with another request before; need a new one for a new request")


def _claimed(store: Store, sweep: Sweep, claim: Claim) -> Sweep:
    """The sweep of another request with the same key; made here, under the same id, if that request has died."""
    try:
        return store.sweep(claim.sweep_id)
    except NotFound:
        if abs(sweep.created_at - claim.at) < UNDER_WAY:  # a claim far in the future: a clock was put back since
            raise Conflict("the first request with this Idempotency-Key is still under way; ask again soon") from None
    try:
        store.add_sweep(replace(sweep, id=claim.sweep_id))
    except Conflict:
        logger.info("another request with the same key made sweep %s just now", claim.sweep_id)
    return store.sweep(claim.sweep_id)


def _fingerprint(request: Any) -> str:
    return _digest(json.dumps(request, sort_keys=True))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
