"""What a view answers when nothing refuses the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..checks import Plan
from ..config import Settings
from ..inputs.array_field import ArrayField
from ..inputs.base64_tensor import Base64Tensor
from ..inputs.categorical import Categorical
from ..output_terms import NO_TERMS, OutputTerms
from ..policy import Policy
from .answered import Answered
from .words import scores, sentence

if TYPE_CHECKING:
    from apispec.core import Components

_NPY = "application/x-npy"
_INFERENCE = {"$ref": "#/components/schemas/InferenceResponse"}


def success(
    policy: Policy, returns: dict[str, Any] | None, settings: Settings, components: Components
) -> dict[str, Any]:
    """Return the Response Object of an answer.

    :param returns: the schema that the policy declares for answers; without it, nothing is known of their form.
    :param components: where schemas go that the terms of outputs make of it.
    """
    found: dict[str, Any] = {
        "description": " ".join(["What the view answers.", *_remarks(policy, settings)]),
        "headers": {"X-Request-ID": {"$ref": "#/components/headers/X-Request-ID"}},
    }
    if returns is not None:
        schema = Answered(components, _terms(policy, settings)).of(returns)
        either = {"anyOf": [schema, _INFERENCE]} if _is_inference(policy, settings) else schema
        content: dict[str, Any] = {"application/json": {"schema": either}}
        if _is_one_array(policy):
            content[_NPY] = {
                "schema": {"contentMediaType": _NPY, "description": "The one array, if Accept asks for it."}
            }
        found["content"] = content
    return found


def _remarks(policy: Policy, settings: Settings) -> list[str]:
    found = [sentence(scores(_terms(policy, settings)))]
    if _is_inference(policy, settings):
        found.append("An inference request is answered with an inference response.")
    return [each for each in found if each]


def _terms(policy: Policy, settings: Settings) -> OutputTerms:
    """Return the terms for a caller without a plan of its own."""
    if policy.outputs is None:
        return NO_TERMS
    return policy.outputs.stricter(settings.plans.get("default", Plan()).outputs)


def _is_inference(policy: Policy, settings: Settings) -> bool:
    """Tell whether the answer can be one of the Open Inference Protocol, as that to a request of it is."""
    return policy.body is not None and not policy.body.many and "oip" in settings.wire_formats


def _is_one_array(policy: Policy) -> bool:
    fields = [] if policy.returns is None or policy.returns.many else list(policy.returns.dump_fields.values())
    return len(fields) == 1 and isinstance(fields[0], ArrayField) and _is_written_as_array(fields[0])


def _is_written_as_array(field: ArrayField) -> bool:
    """Tell whether a value of the field leaves as an array of numbers, and not as text or in base64."""
    texts = isinstance(field, Categorical) and isinstance(field.choices[0], str)
    return bool(field.shape) and not texts and not isinstance(field, Base64Tensor)
