"""What a view answers when nothing refuses the request."""

from __future__ import annotations

from typing import Any

from ..checks import Plan
from ..config import Settings
from ..inputs.array_field import ArrayField
from ..output_terms import OutputTerms
from ..policy import Policy
from .words import scores, sentence

_NPY = "application/x-npy"


def success(policy: Policy, returns: dict[str, Any] | None, settings: Settings) -> dict[str, Any]:
    """Return the Response Object of an answer.

    :param returns: the schema that the policy declares for answers; without it, nothing is known of their form.
    """
    found: dict[str, Any] = {
        "description": " ".join(["What the view answers.", *_remarks(policy, settings)]),
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
    }
    if returns is not None:
        content: dict[str, Any] = {"application/json": {"schema": returns}}
        if _is_one_array(policy):
            content[_NPY] = {
                "schema": {"contentMediaType": _NPY, "description": "The one array, if Accept asks for it."}
            }
        found["content"] = content
    return found


def _remarks(policy: Policy, settings: Settings) -> list[str]:
    found = [sentence(scores(_terms(policy, settings)))] if policy.outputs is not None else []
    if policy.body is not None and "oip" in settings.wire_formats:
        found.append("An inference request is answered with an inference response.")
    return [each for each in found if each]


def _terms(policy: Policy, settings: Settings) -> OutputTerms:
    """Return the terms for a caller without a plan of its own."""
    own = policy.outputs or OutputTerms()
    return own.stricter(settings.plans.get("default", Plan()).outputs)


def _is_one_array(policy: Policy) -> bool:
    fields = [] if policy.returns is None or policy.returns.many else list(policy.returns.dump_fields.values())
    return len(fields) == 1 and isinstance(fields[0], ArrayField)
