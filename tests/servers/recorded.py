"""The exchanges that were recorded from the API server of Kubeflow Pipelines 2.17.0."""

import json
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("kubeflow_recorded.json")
_LONG = re.compile(r"(\w)\1\1\.\.\.\((\d+) times\)")


def recorded_exchanges() -> list[dict[str, Any]]:
    """Every exchange, shortened names written out."""
    text = _LONG.sub(lambda match: match[1] * int(match[2]), FILE.read_text("utf-8"))
    found: list[dict[str, Any]] = json.loads(text)
    return found


def recorded_answer(note: str) -> Any:
    """The answer of the exchange whose note begins so."""
    (found,) = [one for one in recorded_exchanges() if one["note"].startswith(note)]
    return found["answer"]
