"""Options and formats of responses, as clients see them: by decorator, by configuration and by plan."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import date
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pytest
from flask import Flask, Request, Response, jsonify
from marshmallow import Schema
from werkzeug.test import TestResponse

from answering import Serve, assert_withheld
from flask_secure_ml import Exchange, Stage, protect
from flask_secure_ml.inputs import Tensor
from flask_secure_ml.outputs import ArrayJSONProvider
from support import HTTPS, MakeApp, NameAuthenticator, caller

SCORES = np.array([[0.123, 0.456, 0.421], [0.999, 0.0006, 0.0004]])
LABELS = np.array([1, 0])
NPY = "application/x-npy"
EXPECTED = {
    "round": ({"round": 1}, [[0.1, 0.5, 0.4], [1.0, 0.0, 0.0]]),
    "top_k": ({"top_k": 1}, [[0.0, 0.456, 0.0], [0.999, 0.0, 0.0]]),
    "both": ({"top_k": 2, "round": 2}, [[0.0, 0.46, 0.42], [1.0, 0.0, 0.0]]),
}
OPTIONS = [pytest.param(options, scores, id=name) for name, (options, scores) in EXPECTED.items()]


def members(scores: Any = SCORES) -> dict[str, Any]:
    return {"labels": LABELS, "probabilities": scores, "model": "digits"}


def in_flask() -> Any:
    return members()


def by_jsonify() -> Any:
    return jsonify(**members(SCORES.tolist())), 200


def ready() -> Response:
    body = json.dumps({"labels": LABELS.tolist(), "probabilities": SCORES.tolist(), "model": "digits"})
    return Response(body, mimetype="application/json")


def in_pieces() -> Response:
    return Response(list(ready().get_data(as_text=True)), mimetype="application/vnd.api+json")


def scores_of(response: TestResponse) -> Any:
    """Return the scores that a client reads."""
    answer: Any = response.json
    return answer.get("probabilities")


VIEWS = [in_flask, by_jsonify, ready, in_pieces]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("options", "scores"), OPTIONS)
def test_options_of_the_route(view: Any, options: dict[str, Any], scores: Any, serve: Serve) -> None:
    """Scores follow the options of the route, whatever wrote them; without options they are exact."""
    assert serve(view, scores=options).json == {"labels": [1, 0], "probabilities": scores, "model": "digits"}
    assert scores_of(serve(view)) == SCORES.tolist()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(("options", "scores"), OPTIONS)
def test_options_of_the_plan(view: Any, options: dict[str, Any], scores: Any, serve: Serve) -> None:
    """A plan applies to all routes."""
    assert scores_of(serve(view, plan=options)) == scores


@pytest.mark.parametrize("view", VIEWS)
def test_labels_only(view: Any, serve: Serve) -> None:
    """Scores are gone, labels stay."""
    for options in ({"scores": {"label_only": True}}, {"plan": {"label_only": True}}):
        assert serve(view, **options).json == {"labels": [1, 0], "model": "digits"}


@pytest.mark.parametrize("view", VIEWS)
def test_the_stricter_of_route_and_plan(view: Any, serve: Serve) -> None:
    """Term by term."""
    for one, other in (({"round": 1, "top_k": 2}, {"round": 2, "top_k": 1}), ({"top_k": 1}, {"round": 1})):
        for route, plan in ((one, other), (other, one)):
            assert scores_of(serve(view, scores=route, plan=plan)) == [[0, 0.5, 0], [1, 0, 0]]


@pytest.mark.parametrize("view", VIEWS)
def test_a_route_whose_responses_are_not_the_models(view: Any, serve: Serve) -> None:
    """No options apply, also not those of a plan."""
    assert scores_of(serve(view, scores=False, plan={"round": 0, "label_only": True})) == SCORES.tolist()


def test_each_caller_has_the_options_of_its_plan(protected: MakeApp) -> None:
    """Two callers of one route get the options of their plans; an anonymous one has ``default``."""
    plans = {"default": {"scores": {"label_only": True}}, "gold": {}, "free": {"scores": {"round": 1}}}
    seen = {}
    for plan in plans:
        app = Flask("model_app")
        app.add_url_rule("/answer", "answer", in_flask)
        protected(app, parts={"authenticators": [NameAuthenticator(plan)]}, PLANS=plans)
        seen[plan] = scores_of(app.test_client().get("/answer", base_url=HTTPS, headers=caller()))
    assert seen == {"default": None, "gold": SCORES.tolist(), "free": EXPECTED["round"][1]}
    app = Flask("model_app")
    app.add_url_rule("/answer", "answer", in_flask)
    protected(app, PLANS=plans, POLICIES={"answer": {"public": True}})
    assert "probabilities" not in app.test_client().get("/answer", base_url=HTTPS).get_data(as_text=True)


class Counting:
    """A wrapper that counts the calls of a function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.calls = 0
        self.function = function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.function(*args, **kwargs)


@pytest.mark.parametrize(("value", "parsed"), [(members(), 0), (members() | {"when": date(2024, 1, 2)}, 1)])
def test_what_flask_writes_is_not_read_again(
    value: Any, parsed: int, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values are masked before writing, except for those that only the writer can convert."""
    counted = Counting(orjson.loads)
    monkeypatch.setattr("flask_secure_ml.outputs.bodies.orjson.loads", counted)
    response = serve(value, scores={"round": 1})
    monkeypatch.undo()
    assert scores_of(response) == EXPECTED["round"][1]
    assert counted.calls == parsed


@pytest.mark.parametrize(
    "value",
    [{"y": 0.123, "when": date(2024, 1, 2)}, {"y": 0.123, "id": UUID(int=1)}, {"y": 0.123, "n": 2**70}, {1: 0.123}],
    ids=["date", "uuid", "long integer", "key"],
)
def test_what_only_the_writer_knows(value: Any, serve: Serve) -> None:
    """It is masked as JSON, with the same outcome."""
    found = json.dumps(serve(value, scores={"round": 1}).json)
    assert "0.1" in found
    assert "0.123" not in found


def test_a_response_beside_a_shaped_one(serve: Serve) -> None:
    """A masked body does not imply anything about another body."""

    def view() -> Response:
        jsonify(members())
        return ready()

    assert scores_of(serve(view, scores={"round": 1})) == EXPECTED["round"][1]


def test_a_shaped_response_with_another_body(serve: Serve) -> None:
    """Neither does it after the body was replaced."""

    def view() -> Response:
        response: Response = jsonify(members())
        response.set_data(ready().get_data())
        return response

    assert scores_of(serve(view, scores={"round": 1})) == EXPECTED["round"][1]


def test_hooks_of_the_app_that_add_scores(protected: MakeApp) -> None:
    """A hook that writes the body again does not get around the options."""
    app = Flask("model_app")
    app.add_url_rule("/answer", "answer", in_flask)

    @app.after_request
    def extend(response: Response) -> Response:
        response.set_data(ready().get_data())
        return response

    protected(app, POLICIES={"answer": {"scores": {"round": 1}}})
    assert scores_of(app.test_client().get("/answer", base_url=HTTPS, headers=caller())) == EXPECTED["round"][1]


def test_a_json_provider_of_the_users(protected: MakeApp) -> None:
    """Options apply without our writer too."""
    app = Flask("model_app")

    class Own(ArrayJSONProvider):
        pass

    app.json = Own(app)
    app.add_url_rule("/answer", "answer", in_flask)
    protected(app, POLICIES={"answer": {"scores": {"round": 1}}})
    assert scores_of(app.test_client().get("/answer", base_url=HTTPS, headers=caller())) == EXPECTED["round"][1]


# --- the response schema -----------------------------------------------------------------------------------

PREDICTION = "answer_schemas:Prediction"


def test_only_declared_fields_leave(serve: Serve) -> None:
    """Of a value and of a ready body alike, also with other options."""
    value = {"label": "cat", "score": 0.123, "shown": 3, "secret": "x"}
    expected = {"label": "cat", "score": 0.123, "shown": 3}
    for view in (lambda: value, lambda: Response(json.dumps(value), mimetype="application/json")):
        assert serve(view, response=PREDICTION).json == expected
        assert serve(view, response=PREDICTION, scores={"round": 1}).json == expected | {"score": 0.1}
        assert serve(view, response=PREDICTION, plan={"label_only": True}).json == {"label": "cat", "shown": 3}
    assert serve(lambda: value).json == value


def test_declared_arrays(serve: Serve) -> None:
    """They are masked as arrays."""
    value = {"label": "cat", "scores": np.array([[0.123, 0.877]])}
    answer = serve(lambda: value, response=PREDICTION, scores={"top_k": 1, "round": 1}).json
    assert answer == {"label": "cat", "scores": [[0.0, 0.9]]}


@pytest.mark.parametrize(
    "value",
    [{"score": 0.5}, {"label": 5}, {"label": {"a": 1}}, {"label": "cat", "score": "0.5"}, [{"label": "cat"}]],
    ids=str,
)
def test_what_is_not_as_declared(value: Any, serve: Serve) -> None:
    """The whole response is replaced by an error response."""
    assert_withheld(serve(lambda: value, response=PREDICTION))
    assert_withheld(serve(lambda: np.zeros(2) if isinstance(value, list) else value, response=PREDICTION))


# --- formats -----------------------------------------------------------------------------------------------


class OpenInference:
    """Sets the exchange like a guard that reads the Open Inference Protocol."""

    name = "oip"
    stage = Stage.INPUT

    def check(self, request: Request, exchange: Exchange) -> None:
        exchange.format = "oip"
        exchange.format_options = {"id": request.args.get("id"), "outputs": request.args.getlist("output")}


@pytest.fixture
def infer(protected: MakeApp) -> Callable[..., Any]:
    """Ask a view in the Open Inference Protocol."""

    def ask(view: Any, query: str = "", headers: Any = None, **options: Any) -> Any:
        app = Flask("model_app")
        app.add_url_rule("/v2/models/<model_name>/infer", "infer", protect(**options)(lambda model_name: view()))
        protected(app, parts={"guards": [OpenInference()]})
        address = f"/v2/models/digits/infer?{query}"
        return app.test_client().get(address, base_url=HTTPS, headers=caller() | (headers or {}))

    return ask


def output(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def test_the_open_inference_protocol(infer: Callable[..., Any]) -> None:
    """A request in this protocol gets a response in it, with the options of the route."""
    response = infer(lambda: {"y": SCORES, "n": LABELS}, "id=42", scores={"top_k": 1})
    assert response.json == {
        "model_name": "digits",
        "id": "42",
        "outputs": [
            output("y", "FP64", [2, 3], [0, 0.456, 0, 0.999, 0, 0]),
            output("n", "INT64", [2], [1, 0]),
        ],
    }
    assert response.mimetype == "application/json"
    response = infer(lambda: {"y": SCORES, "n": LABELS}, "id=%3Cb%3E", scores={"label_only": True})
    assert response.json == {"model_name": "digits", "outputs": [output("n", "INT64", [2], [1, 0])]}
    response = infer(lambda: {"y": SCORES, "n": LABELS}, "output=n")
    assert [each["name"] for each in response.json["outputs"]] == ["n"]


class Inputs(Schema):
    x = Tensor((None, 2))


def test_a_request_in_the_open_inference_protocol(protected: MakeApp) -> None:
    """From the body of a request to its response: the id and the wanted output, masked."""
    app = Flask("model_app")

    @app.post("/v2/models/<model_name>/infer")
    @protect(body=Inputs, scores={"round": 1})
    def infer(payload: Any, model_name: str) -> Any:
        return {"y": payload["x"] / 3, "n": LABELS}

    protected(app, WIRE_FORMATS=["json", "oip"])
    x = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    body = {"id": "q-1", "inputs": [x], "outputs": [{"name": "y"}]}
    response = app.test_client().post("/v2/models/iris/infer", json=body, base_url=HTTPS, headers=caller())
    expected = output("y", "FP32", [1, 2], [0.3, 0.7])
    assert response.json == {"model_name": "iris", "id": "q-1", "outputs": [expected]}


def test_a_view_that_writes_the_protocol_itself(infer: Callable[..., Any], serve: Serve) -> None:
    """Its tensors are masked by their shape, as a value and as a ready body."""
    document = {"model_name": "m", "outputs": [output("y", "FP64", [2, 3], SCORES.ravel().tolist())]}
    for view in (lambda: document, lambda: Response(json.dumps(document), mimetype="application/json")):
        for ask in (infer, serve):
            response: Any = ask(view, scores={"top_k": 1}).json
            assert response["outputs"] == [output("y", "FP64", [2, 3], [0, 0.456, 0, 0.999, 0, 0])]


def test_npy(serve: Serve) -> None:
    """A client that accepts npy gets the only array of a response as a file, with the options of the route."""
    for view in (lambda: {"y": SCORES}, lambda: {"y": SCORES.tolist()}):
        response = serve(view, headers={"Accept": NPY}, scores={"round": 1})
        assert (response.status_code, response.mimetype) == (200, NPY)
        array = np.load(io.BytesIO(response.data), allow_pickle=False)
        assert array.tolist() == EXPECTED["round"][1]


def test_an_array_alone(serve: Serve, place: str) -> None:
    """A view with the decorator may return an array, with a status and headers too; Flask rejects it from others."""
    if place == "configuration":
        assert_withheld(serve(lambda: SCORES))
        return

    async def view() -> Any:
        return SCORES

    assert serve(lambda: SCORES).json == serve(view).json == SCORES.tolist()
    file = io.BytesIO(serve(lambda: SCORES, headers={"Accept": NPY}).data)
    assert np.load(file).tolist() == SCORES.tolist()
    response = serve(lambda: (SCORES, 201, {"X-Mine": "1"}), scores={"round": 1})
    assert (response.status_code, response.headers["X-Mine"], response.json) == (201, "1", EXPECTED["round"][1])


def test_a_ready_npy_file(serve: Serve) -> None:
    """It is masked too."""
    file = io.BytesIO()
    np.save(file, SCORES)
    response = serve(lambda: Response(file.getvalue(), mimetype=NPY), scores={"round": 1})
    assert np.load(io.BytesIO(response.data)).tolist() == EXPECTED["round"][1]
    assert_withheld(serve(lambda: Response(file.getvalue(), mimetype=NPY), scores={"label_only": True}))


@pytest.mark.parametrize("accept", ["text/html", "application/x-npy", "application/json;q=0"])
def test_what_the_client_does_not_accept(accept: str, serve: Serve) -> None:
    """If no possible format is accepted: 406, and the log has the reason."""
    assert_withheld(serve(in_flask, headers={"Accept": accept}), 406, "not_acceptable")


@pytest.mark.parametrize("accept", [None, "application/json", NPY, "text/html"])
def test_a_cache_knows_that_the_format_is_chosen(accept: str | None, serve: Serve) -> None:
    """Both formats of an array have ``Vary: Accept``; a response with one format does not."""
    headers = {} if accept is None else {"Accept": accept}
    assert "Accept" in serve(lambda: {"y": SCORES}, headers=headers).headers["Vary"]
    assert "Accept" not in serve(lambda: {"y": 1, "z": 2}, headers=headers).headers.get("Vary", "")


def test_accept_is_for_responses_only(serve: Serve) -> None:
    """An error ignores Accept, and the view chooses the format of a body that it wrote itself."""
    headers = {"Accept": "text/html"}
    assert serve(lambda: ({"fault": "x"}, 409), headers=headers).json == {"fault": "x"}
    assert serve(ready, headers=headers).status_code == 200
    assert serve(lambda: (jsonify(1), Response("<p>"))[1], headers=headers).data == b"<p>"


# --- NaN ---------------------------------------------------------------------------------------------------


def nan_in_flask() -> Any:
    return {"y": np.array([np.nan, 0.5])}


def nan_ready() -> Response:
    return Response('{"y": [NaN, 0.5]}', mimetype="application/json")


def nan_in_pieces() -> Response:
    return Response(['{"y": [Na', "N, 0.5]}"], mimetype="application/json")


@pytest.mark.parametrize("view", [nan_in_flask, nan_ready, nan_in_pieces])
def test_nan(view: Any, serve: Serve) -> None:
    """It is rejected without a word about it, and null where it is allowed, unless the other side rejects it."""
    assert_withheld(serve(view))
    assert_withheld(serve(view, scores={"round": 1}))
    assert_withheld(serve(view, scores=False))
    assert_withheld(serve(view, scores={"nan": "null"}, plan={"nan": "reject"}))
    assert_withheld(serve(view, scores={"nan": "null", "top_k": 1}))
    assert serve(view, scores={"nan": "null"}).json == {"y": [None, 0.5]}
    assert serve(view, plan={"nan": "null", "round": 0}).json == {"y": [None, 0.0]}


def test_nan_in_npy(serve: Serve) -> None:
    """A file can contain it, but it is rejected."""
    view, headers = (lambda: {"y": np.array([np.nan])}), {"Accept": NPY}
    assert_withheld(serve(view, headers=headers))
    response = serve(view, headers=headers, scores={"nan": "null"})
    assert np.isnan(np.load(io.BytesIO(response.data))).all()


def test_texts_that_look_like_it(serve: Serve) -> None:
    """A string is not a number."""
    text = '{"label": "NaN", "word": "Infinity"}'
    assert serve(lambda: Response(text, mimetype="application/json")).get_data(as_text=True) == text
