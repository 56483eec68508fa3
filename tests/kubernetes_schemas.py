"""JSON Schemas of what deploy/ uses of Kubernetes (core/v1, apps/v1, networking.k8s.io/v1) and KubeRay (ray.io/v1).

Kept by hand from the projects' API references, and narrower than those: a field that is not here is refused, so that a
slip of the pen is found without a cluster. A manifest that needs another field adds it here.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _object(required: dict[str, Schema], optional: dict[str, Schema] | None = None) -> Schema:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


TEXT: Schema = {"type": "string", "minLength": 1}
NAME: Schema = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", "maxLength": 63}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITIES: Schema = {
    "type": "object",
    "additionalProperties": {"type": "string", "pattern": r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"},
}
METADATA = _object({"name": NAME}, {"labels": TEXTS, "annotations": TEXTS})
SELECTOR = _object(
    {},
    {
        "matchLabels": TEXTS,
        "matchExpressions": _list(
            _object(
                {"key": TEXT, "operator": {"enum": ["In", "NotIn", "Exists", "DoesNotExist"]}}, {"values": _list(TEXT)}
            )
        ),
    },
)
PROBE = {
    **_object(
        {},
        {
            "exec": _object({"command": _list(TEXT)}),
            "httpGet": _object(
                {"path": TEXT, "port": PORT}, {"httpHeaders": _list(_object({"name": TEXT, "value": TEXT}))}
            ),
            "periodSeconds": COUNT,
            "timeoutSeconds": COUNT,
            "failureThreshold": COUNT,
        },
    ),
    "oneOf": [{"required": ["exec"]}, {"required": ["httpGet"]}],
}
VARIABLE = {
    **_object(
        {"name": {"type": "string", "pattern": r"^[A-Z_][A-Z0-9_]*$"}},
        {"value": {"type": "string"}, "valueFrom": _object({"secretKeyRef": _object({"name": NAME, "key": TEXT})})},
    ),
    "oneOf": [{"required": ["value"]}, {"required": ["valueFrom"]}],
}
CONTAINER = _object(
    {"name": NAME, "image": TEXT},
    {
        "command": _list(TEXT),
        "args": _list(TEXT),
        "env": _list(VARIABLE),
        "ports": _list(_object({"name": NAME, "containerPort": PORT})),
        "livenessProbe": PROBE,
        "readinessProbe": PROBE,
        "startupProbe": PROBE,
        "resources": _object({"requests": QUANTITIES}, {"limits": QUANTITIES}),
        "securityContext": _object({"allowPrivilegeEscalation": BOOLEAN}),
        "volumeMounts": _list(_object({"name": NAME, "mountPath": TEXT}, {"readOnly": BOOLEAN})),
    },
)
VOLUME = {
    **_object(
        {"name": NAME},
        {
            "configMap": _object({"name": NAME}),
            "emptyDir": _object({}, {"medium": {"enum": ["", "Memory"]}, "sizeLimit": TEXT}),
            "persistentVolumeClaim": _object({"claimName": NAME}),
            "secret": _object({"secretName": NAME}, {"items": _list(_object({"key": TEXT, "path": TEXT}))}),
        },
    ),
    "minProperties": 2,
    "maxProperties": 2,
}
POD = _object(
    {"containers": _list(CONTAINER)},
    {
        "initContainers": _list(CONTAINER),
        "volumes": _list(VOLUME),
        "automountServiceAccountToken": BOOLEAN,
        "securityContext": _object({}, {"runAsNonRoot": BOOLEAN, "runAsUser": COUNT, "fsGroup": COUNT}),
        "tolerations": _list(
            _object({"key": TEXT, "operator": {"enum": ["Exists", "Equal"]}}, {"value": TEXT, "effect": TEXT})
        ),
    },
)
TEMPLATE = _object({"metadata": _object({"labels": TEXTS}, {"annotations": TEXTS}), "spec": POD})
CLAIM = _object(
    {
        "accessModes": _list({"enum": ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"]}),
        "resources": _object({"requests": _object({"storage": TEXT})}),
    },
    {"storageClassName": TEXT},
)
PEER = _object({}, {"podSelector": SELECTOR, "namespaceSelector": SELECTOR})
START = TEXTS
"""Parameters of `ray start`: texts, also where they are numbers."""


def _kind(api: str, kind: str, **parts: Schema) -> Schema:
    return _object({"apiVersion": {"const": api}, "kind": {"const": kind}, "metadata": METADATA, **parts})


SCHEMAS: dict[str, Schema] = {
    "Namespace": _kind("v1", "Namespace"),
    "ConfigMap": _kind("v1", "ConfigMap", data=TEXTS),
    "PersistentVolumeClaim": _kind("v1", "PersistentVolumeClaim", spec=CLAIM),
    "Service": _kind(
        "v1",
        "Service",
        spec=_object({"selector": TEXTS, "ports": _list(_object({"name": NAME, "port": PORT, "targetPort": PORT}))}),
    ),
    "Deployment": _kind(
        "apps/v1",
        "Deployment",
        spec=_object(
            {"selector": SELECTOR, "template": TEMPLATE},
            {"replicas": COUNT, "strategy": _object({"type": {"enum": ["Recreate", "RollingUpdate"]}})},
        ),
    ),
    "StatefulSet": _kind(
        "apps/v1",
        "StatefulSet",
        spec=_object(
            {"selector": SELECTOR, "template": TEMPLATE, "serviceName": NAME},
            {"replicas": COUNT, "volumeClaimTemplates": _list(_object({"metadata": METADATA, "spec": CLAIM}))},
        ),
    ),
    "NetworkPolicy": _kind(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        spec=_object(
            {"podSelector": SELECTOR, "policyTypes": _list({"enum": ["Ingress", "Egress"]})},
            {
                "ingress": _list(
                    _object(
                        {},
                        {
                            "from": _list(PEER),
                            "ports": _list(_object({"protocol": {"enum": ["TCP", "UDP"]}, "port": PORT})),
                        },
                    )
                )
            },
        ),
    ),
    "RayCluster": _kind(
        "ray.io/v1",
        "RayCluster",
        spec=_object(
            {
                "rayVersion": {"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
                "headGroupSpec": _object(
                    {"rayStartParams": START, "template": TEMPLATE},
                    {"serviceType": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}},
                ),
                "workerGroupSpecs": _list(
                    _object(
                        {
                            "groupName": NAME,
                            "replicas": COUNT,
                            "rayStartParams": START,
                            "template": TEMPLATE,
                        }
                    )
                ),
            },
            {"authOptions": _object({"mode": {"enum": ["disabled", "token"]}}, {"secretName": NAME})},
        ),
    ),
}
