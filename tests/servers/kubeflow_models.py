"""Bodies held against the models of Kubeflow Pipelines' own client, kfp-server-api."""

from datetime import datetime
from typing import Any

import kfp_server_api


def check_model(model: str, body: dict[str, Any]) -> None:
    """Every key is a field of the API's model, and every value of the field's type."""
    cls = getattr(kfp_server_api, model)
    kinds = {key: cls.openapi_types[name] for name, key in cls.attribute_map.items()}
    for key, value in body.items():
        assert key in kinds, f"{model} has no field {key}"
        check_kind(kinds[key], value)


def check_kind(kind: str, value: Any) -> None:
    if kind in ("str", "bool", "int"):
        assert type(value).__name__ == kind
    elif kind == "datetime":
        assert datetime.fromisoformat(value).tzinfo is not None
    elif kind == "object" or kind.startswith("dict"):
        assert isinstance(value, dict)
    elif kind.startswith("list["):
        for one in value:
            check_kind(kind[5:-1], one)
    elif isinstance(value, str):  # one of the words of an enumeration
        assert value in vars(getattr(kfp_server_api, kind)).values()
    else:
        check_model(kind, value)
