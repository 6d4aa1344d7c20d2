"""Checks Ray objects against KubeRay's schemas as an API server does: structure, defaults, and CEL rules.

The schemas are KubeRay's custom resource definitions, which every release publishes as `ray.io_rayjobs.yaml` and so on.
They are not part of this project.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from cluster.kuberay.clusters import Found
from cluster.kuberay.manifests import Manifest, mapping
from configs.errors import ConfigError
from configs.recipe import Key, short

SCHEMAS_VARIABLE = "CHIMED_KUBERAY_CRDS"
RAY_KINDS = ("RayCluster", "RayJob", "RayService", "RayCronJob")

_FILES = {kind: f"ray.io_{kind.lower()}s.yaml" for kind in RAY_KINDS}
_COPIED = ("enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems")
_COMBINED = ("allOf", "anyOf", "oneOf", "not")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if PyYAML was built with it


class RaySchemas:
    """KubeRay's schemas in a folder.

    Args:
        folder: the folder of KubeRay's custom resource definitions.

    Raises:
        ConfigError: a definition is missing.
    """

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)
        for name in _FILES.values():
            if not (self._folder / name).is_file():
                raise ConfigError(
                    f"{folder}: there is no {name}; give the folder of KubeRay's custom resource definitions "
                    f"(helm-chart/kuberay-operator/crds of its repository) by --crds or {SCHEMAS_VARIABLE}"
                )

    def problems(self, manifest: Manifest) -> Iterator[Found]:
        """Yields what an API server with these definitions would reject in a Ray object."""
        version = str(manifest.content["apiVersion"])
        served = _versions(self._folder / _FILES[manifest.kind])
        if version not in served:
            yield ("apiVersion",), f"is {version}, which is not served; use {', '.join(served)}"
            return
        schema, validator = served[version]
        found = sorted(validator.iter_errors(manifest.content), key=lambda error: list(map(str, error.absolute_path)))
        for error in found:
            yield from explain(error)
        if not found:
            yield from _cel_problems(schema, with_defaults(schema, manifest.content), ())


def explain(error: ValidationError) -> Iterator[Found]:
    """Converts a schema error to problems as this check reports them."""
    key: Key = tuple(error.absolute_path)
    if error.validator == "additionalProperties":
        known = list(mapping(error.schema).get("properties", {}))
        for name in error.instance:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                yield (*key, name), f"no such field; {f'did you mean {near[0]}?' if near else 'remove it'}"
    elif error.validator == "required":
        for name in error.validator_value:
            if name not in error.instance:
                yield (*key, name), "is missing; add it"
    elif error.validator == "type":
        types = error.validator_value if isinstance(error.validator_value, list) else [error.validator_value]
        wanted = " or ".join(kind for kind in types if kind != "null")
        yield key, f"is {short(error.instance)}; it must be of type {wanted}"
    elif error.validator == "enum":
        yield key, f"is {short(error.instance)}; give one of {', '.join(map(str, error.validator_value))}"
    else:
        yield key, f"{' '.join(error.message.split())[:200]}; see the field's description in the schema"


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """Converts a structural schema of Kubernetes to a JSON schema.

    In the result, unknown fields, which Kubernetes silently drops, are errors; a property with a default is not
    required; and an object may be null.
    """
    if "properties" not in schema and schema.get("x-kubernetes-preserve-unknown-fields"):
        return {}
    result = {name: schema[name] for name in (*_COPIED, *_COMBINED) if name in schema}
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
        result.pop("anyOf", None)
    elif kind:
        result["type"] = [kind, "null"] if kind == "object" or schema.get("nullable") else kind
    if schema.get("format") == "int32":
        result.setdefault("minimum", -(2**31))
        result.setdefault("maximum", 2**31 - 1)
    if "items" in schema:
        result["items"] = strict(schema["items"])
    if kind == "object":
        properties = schema.get("properties", {})
        result["properties"] = {name: strict(value) for name, value in properties.items()}
        result["required"] = [n for n in schema.get("required", ()) if "default" not in properties.get(n, {})]
        more = schema.get("additionalProperties", bool(schema.get("x-kubernetes-preserve-unknown-fields")))
        result["additionalProperties"] = strict(more) if isinstance(more, dict) else more
    return result


def with_defaults(schema: dict[str, Any], value: Any) -> Any:
    """Returns `value` with the schema's defaults, as an API server stores it: CEL rules apply to that form."""
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        more = mapping(schema.get("additionalProperties"))
        filled = {name: with_defaults(properties.get(name, more), item) for name, item in value.items()}
        defaults = {name: field["default"] for name, field in properties.items() if "default" in field}
        return {**defaults, **filled}
    if isinstance(value, list):
        return [with_defaults(schema.get("items", {}), item) for item in value]
    return value


@cache
def _versions(path: Path) -> dict[str, tuple[dict[str, Any], Draft202012Validator]]:
    definition = yaml.load(path.read_text(encoding="utf-8"), Loader=_LOADER)["spec"]  # noqa: S506 - a safe loader
    served = {}
    for version in definition["versions"]:
        if version["served"]:
            schema = version["schema"]["openAPIV3Schema"]
            closed = strict(schema)
            closed["properties"]["metadata"] = {}  # checked by `core.metadata_problems`, for all kinds
            served[f"{definition['group']}/{version['name']}"] = schema, Draft202012Validator(closed)
    return served


def _cel_problems(schema: dict[str, Any], value: Any, key: Key) -> Iterator[Found]:
    """Evaluates the schema's CEL rules for `value` and everything below it, except rules about changes (`oldSelf`)."""
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"] and not _program(rule["rule"]).evaluate({"self": celpy.json_to_cel(value)}):
            yield key, f"{rule.get('message', 'breaks a rule')} (rule: {rule['rule']}); change it"
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), mapping(schema.get("additionalProperties"))
        for name, item in value.items():
            yield from _cel_problems(properties.get(name, more), item, (*key, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _cel_problems(schema.get("items", {}), item, (*key, index))


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))
