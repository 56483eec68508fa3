"""deploy/, where there is no cluster to apply it to: its shape, and that its parts find each other."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from service.settings import Settings
from tests.kubernetes_schemas import SCHEMAS

DEPLOY = Path(__file__).parent.parent / "deploy"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((DEPLOY / "kustomization.yaml").read_text())
SECRET_KEYS = {"auth_token", "postgres_password", "object_store_password"}


def by_name(manifests: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Manifests by kind and name."""
    return {f"{one['kind']} {one['metadata']['name']}": one for one in manifests}


MANIFESTS = by_name(
    one for name in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((DEPLOY / name).read_text())
)


def pods(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The templates of pods in a manifest."""
    spec = manifest.get("spec", {})
    if "template" in spec:
        yield spec["template"]
    if "headGroupSpec" in spec:
        yield spec["headGroupSpec"]["template"]
        yield from (group["template"] for group in spec["workerGroupSpecs"])


def containers(manifests: Mapping[str, dict[str, Any]] = MANIFESTS) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container, with the manifest it is in."""
    for name, manifest in manifests.items():
        for pod in pods(manifest):
            yield from ((name, one) for one in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())))


def variables(container: dict[str, Any]) -> dict[str, Any]:
    """A container's environment; what comes from a secret as `secret:KEY`."""
    return {
        one["name"]: one["value"] if "value" in one else f"secret:{one['valueFrom']['secretKeyRef']['key']}"
        for one in container.get("env", ())
    }


def test_every_manifest_is_listed_once() -> None:
    """What kustomize does not list, it does not apply."""
    listed = KUSTOMIZATION["resources"]
    assert sorted(listed) == sorted(path.name for path in DEPLOY.glob("*.yaml") if path.name != "kustomization.yaml")
    documents = [one for name in listed for one in yaml.safe_load_all((DEPLOY / name).read_text())]
    assert len(documents) == len(MANIFESTS)


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_the_shape_of_its_kind(name: str) -> None:
    """By the schemas in kubernetes_schemas.py."""
    schema = SCHEMAS[MANIFESTS[name]["kind"]]
    jsonschema.Draft202012Validator.check_schema(schema)
    faults = [
        f"{error.json_path}: {error.message}"
        for error in jsonschema.Draft202012Validator(schema).iter_errors(MANIFESTS[name])
    ]
    assert faults == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replica"), 2),
        (("spec", "template", "spec", "containers", 0, "env", 0), {"name": "A", "value": 1}),
        (("spec", "template", "spec", "containers", 0, "ports", 0, "containerPort"), "8000"),
        (("apiVersion",), "apps/v2"),
    ],
)
def test_the_schemas_find_slips(path: tuple[Any, ...], value: object) -> None:
    """A misspelt field, a number where a text must be, a text where a number must be, another version."""
    broken: Any = yaml.safe_load(yaml.safe_dump(MANIFESTS["Deployment api"]))
    inner = broken
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    assert not jsonschema.Draft202012Validator(SCHEMAS["Deployment"]).is_valid(broken)


def test_secrets_come_by_reference_only() -> None:
    """All from one secret, which is not in these files."""
    assert not any(manifest["kind"] == "Secret" for manifest in MANIFESTS.values())
    used = set()
    for name, container in containers():
        for one in container.get("env", ()):
            if re.search("PASSWORD|TOKEN$|SECRET", one["name"]):
                assert one["valueFrom"]["secretKeyRef"]["name"] == "sweepserve", (name, one["name"])
            if "valueFrom" in one:
                used.add(one["valueFrom"]["secretKeyRef"]["key"])
    text = "".join(path.read_text() for path in DEPLOY.glob("*.yaml"))
    assert not re.search(r"://[^/\s:]+:[^/\s@]+@", text), "a password in a URL"
    (volume,) = [one for one in MANIFESTS["Deployment api"]["spec"]["template"]["spec"]["volumes"] if "secret" in one]
    used |= {item["key"] for item in volume["secret"]["items"]}
    assert used == SECRET_KEYS
    assert MANIFESTS["RayCluster ray"]["spec"]["authOptions"] == {"mode": "token", "secretName": "sweepserve"}
    operations = (DEPLOY.parent / "docs" / "operations.md").read_text()
    assert all(f"--from-literal={key}=" in operations for key in SECRET_KEYS)


def test_settings_are_known_and_agree() -> None:
    """Every SWEEPSERVE_ variable is a setting; the API, the drivers and the workers share home and database."""
    ours = [variables(one) for _, one in containers() if "SWEEPSERVE_HOME" in variables(one)]
    assert len(ours) == 4
    for found in ours:
        Settings.from_environment({name: value for name, value in found.items() if name.startswith("SWEEPSERVE_")})
    for variable in ("SWEEPSERVE_HOME", "SWEEPSERVE_DATABASE", "SWEEPSERVE_JSON_LOGS", "PGPASSWORD"):
        assert len({found[variable] for found in ours}) == 1


def test_names_lead_somewhere() -> None:
    """Volumes, claims, services and their pods, and the hosts of URLs; Ray's head service is KubeRay's.

    People come to MLflow on localhost by a forwarded port.
    """
    services = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS.values() if one["kind"] == "Service"}
    labels = [pod["metadata"]["labels"] for manifest in MANIFESTS.values() for pod in pods(manifest)]
    for spec in services.values():
        assert spec["selector"] in labels
    for name, manifest in MANIFESTS.items():
        claimed = {claim["metadata"]["name"] for claim in manifest.get("spec", {}).get("volumeClaimTemplates", ())}
        for pod in pods(manifest):
            volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())} | claimed
            for container in (*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())):
                assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes, name
            for volume in pod["spec"].get("volumes", ()):
                if "persistentVolumeClaim" in volume:
                    assert f"PersistentVolumeClaim {volume['persistentVolumeClaim']['claimName']}" in MANIFESTS
    known = {**{name: spec["ports"][0]["port"] for name, spec in services.items()}, "ray-head-svc": 8265}
    known["localhost"] = known["mlflow"]
    for _, container in containers():
        for value in (*variables(container).values(), *container.get("command", ())):
            for host, port in re.findall(r"(?:http://|@)([a-z][a-z-]+)(?::(\d+))?", value):
                assert host in known, value
                assert not port or int(port) == known[host], value


def test_only_the_api_is_reached_from_outside() -> None:
    """Everything is closed first; then each pod is opened, to those who need it, on a port that it has."""
    policies = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS.values() if one["kind"] == "NetworkPolicy"}
    assert policies.pop("nobody") == {"podSelector": {}, "policyTypes": ["Ingress"]}
    open_to_all = {name for name, spec in policies.items() if any("from" not in rule for rule in spec["ingress"])}
    assert open_to_all == {"api"}
    labels = {pod["metadata"]["labels"]["app"] for manifest in MANIFESTS.values() for pod in pods(manifest)}
    assert {spec["podSelector"]["matchLabels"]["app"] for spec in policies.values()} == labels
    assert not any("type" in one["spec"] for one in MANIFESTS.values() if one["kind"] == "Service")


def test_ray_is_of_the_installed_version() -> None:
    """Head, workers and drivers are of one image; KubeRay is told the version that is in it."""
    constraints = (DEPLOY.parent / "constraints.txt").read_text()
    ray = MANIFESTS["RayCluster ray"]["spec"]
    assert f"\nray=={ray['rayVersion']}\n" in constraints
    images = {one["image"] for name, one in containers() if name != "StatefulSet postgres"}
    assert {image.partition(":")[0] for image in images} == {"sweepserve", "minio/minio"}
    assert all(":" in image or image == "sweepserve" for image in images)  # ours is set in kustomization.yaml
    assert [one["name"] for one in KUSTOMIZATION["images"]] == ["sweepserve"]


def test_the_api_stays_reachable_while_ray_is_away() -> None:
    """What takes it out of its Service, or restarts it, asks only whether the process answers."""
    (api,) = [one for name, one in containers() if name == "Deployment api"]
    probes = {name: one["httpGet"]["path"] for name, one in api.items() if name.endswith("Probe")}
    assert probes == dict.fromkeys(("startupProbe", "livenessProbe", "readinessProbe"), "/healthz")


def test_an_upgrade_of_the_tables_has_an_hour() -> None:
    """The API answers after it; until then nothing asks whether it lives."""
    (api,) = [one for name, one in containers() if name == "Deployment api"]
    assert api["startupProbe"]["failureThreshold"] * api["startupProbe"]["periodSeconds"] == 3600


def test_kubectl_renders_the_manifests() -> None:
    """All of them, each in our namespace, with the image that kustomization.yaml names."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("kubectl is not installed")
    done = subprocess.run([kubectl, "kustomize", DEPLOY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    rendered = by_name(yaml.safe_load_all(done.stdout))
    assert set(rendered) == set(MANIFESTS)
    assert {one["metadata"].get("namespace") for one in rendered.values() if one["kind"] != "Namespace"} == {
        "sweepserve"
    }
    ours = "{newName}:{newTag}".format(**KUSTOMIZATION["images"][0])
    images = {(name, one["name"]): one["image"] for name, one in containers()}
    assert {(name, one["name"]): one["image"] for name, one in containers(rendered)} == {
        container: ours if image == "sweepserve" else image for container, image in images.items()
    }


def test_no_trials_run_on_the_head() -> None:
    """It has no processors for them, and at least one node of each kind of worker is there from the start."""
    ray = MANIFESTS["RayCluster ray"]["spec"]
    assert ray["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(group["replicas"] >= 1 for group in ray["workerGroupSpecs"])
    gpus = [one["resources"]["limits"].get("nvidia.com/gpu") for _, one in containers() if one["name"] == "ray"]
    assert gpus == [None, None, "1"]
