"""Reading MLflow's registry over its REST API, without MLflow: importing it costs seconds that a question need not.

The subset of ``MlflowClient`` that reading versions takes, with the same names and the same values.
"""

from types import SimpleNamespace
from typing import Any

import httpx


class Refused(Exception):
    """An answer that is an error, with MLflow's code for it."""

    def __init__(self, error_code: str, message: str) -> None:
        super().__init__(message)
        self.error_code = error_code


class Reader:
    """The versions of the models of one MLflow server. Raises ``httpx.HTTPError`` when that does not answer."""

    def __init__(self, server: str, login: tuple[str, str] | None = None) -> None:
        # trust_env: a proxy of the environment is not asked for an address of this machine.
        self._http = httpx.Client(base_url=f"{server}/api/2.0/mlflow/", auth=login, timeout=10.0, trust_env=False)

    def get_model_version_by_alias(self, name: str, alias: str) -> SimpleNamespace:
        """The version that an alias points to."""
        return _version(self._ask("registered-models/alias", name=name, alias=alias)["model_version"])

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        """One version."""
        return _version(self._ask("model-versions/get", name=name, version=version)["model_version"])

    def get_registered_model(self, name: str) -> SimpleNamespace:
        """A model's own page."""
        found = self._ask("registered-models/get", name=name)["registered_model"]
        return SimpleNamespace(
            name=found["name"],
            aliases={one["alias"]: one["version"] for one in found.get("aliases", ())},
            tags={tag["key"]: tag.get("value", "") for tag in found.get("tags", ())},
        )

    def search_model_versions(self, condition: str, max_results: int) -> list[SimpleNamespace]:
        """The versions that meet a condition, without their aliases, as MLflow's search answers."""
        found = self._ask("model-versions/search", filter=condition, max_results=str(max_results))
        return [_version(each) for each in found.get("model_versions", [])]

    def _ask(self, path: str, **query: str) -> Any:
        answer = self._http.get(path, params=query)
        if answer.is_success:
            return answer.json()
        try:
            error = answer.json()
            refused = Refused(str(error["error_code"]), str(error.get("message", "")))
        except (ValueError, TypeError, KeyError) as not_mlflow:
            raise httpx.RequestError(f"{answer.url} answers as no MLflow does ({answer.status_code})") from not_mlflow
        raise refused


def _version(found: dict[str, Any]) -> SimpleNamespace:
    """A version under the names that MLflow's own class has."""
    return SimpleNamespace(
        name=found["name"],
        version=found["version"],
        run_id=found.get("run_id"),
        tags={tag["key"]: tag.get("value", "") for tag in found.get("tags", ())},
        description=found.get("description"),
        aliases=found.get("aliases", ()),
        creation_timestamp=found.get("creation_timestamp"),
    )
