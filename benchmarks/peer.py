"""The peer: a comparable app with FastAPI, pydantic, slowapi and PyJWT, written with care."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field, create_model
from slowapi import Limiter
from slowapi.errors import RateLimitExceeded

from .apps import AUDIENCE, ISSUER, LIMITS, predict

HEADERS = {
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_log = logging.Logger("peer")  # noqa: LOG001  a private logger, so that no configuration affects it


def make_app(columns: int, folder: Path) -> FastAPI:
    """Return the app: token, scope, limit, body model, headers, log."""
    _log.addHandler(logging.FileHandler(os.devnull))
    app = FastAPI()
    limiter = Limiter(key_func=lambda request: request.headers.get("Authorization", "none"))
    app.state.limiter = limiter
    app.add_exception_handler(RateLimitExceeded, lambda _request, _error: Response(status_code=429))
    app.middleware("http")(_headers_and_log)
    signer = jwt.PyJWKSet.from_dict(json.loads((folder / "jwks.json").read_text())).keys[0]
    # Types instead of strings: FastAPI looks up names in the module, but these are local.
    annotations: dict[str, Any] = {
        "request": Request,
        "body": _body(columns),
        "_claims": Annotated[Any, Depends(_verifier(signer))],
    }

    async def view(request: Any, body: Any, _claims: Any) -> dict[str, Any]:  # noqa: ARG001  slowapi reads the request
        return {"sums": predict(body.instances).tolist()}

    view.__annotations__ = annotations
    app.post("/predict")(limiter.limit(";".join(LIMITS))(view))
    return app


def _body(columns: int) -> type[BaseModel]:
    number = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
    row = Annotated[list[number], Field(min_length=columns, max_length=columns)]
    rows = Annotated[list[row], Field(min_length=1)]
    return create_model("Body", __config__=ConfigDict(extra="forbid"), instances=(rows, ...))


def _verifier(signer: jwt.PyJWK) -> Callable[..., Any]:
    bearer = HTTPBearer()

    def verify(found: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict[str, Any]:
        try:
            claims: dict[str, Any] = jwt.decode(
                found.credentials, signer.key, algorithms=["RS256"], audience=AUDIENCE, issuer=ISSUER
            )
        except jwt.InvalidTokenError:
            raise HTTPException(401) from None
        if "predict" not in claims.get("scope", "").split():
            raise HTTPException(403)
        return claims

    async def verify_at_once(found: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> dict[str, Any]:
        return verify(found)

    # Not in a thread pool, which would cost the peer more than verifying the signature.
    verify_at_once.__annotations__ = {"found": Annotated[HTTPAuthorizationCredentials, Depends(bearer)]}
    return verify_at_once


async def _headers_and_log(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    started = time.perf_counter()
    response = await call_next(request)
    response.headers.update(HEADERS)
    line = {
        "time": time.time(),
        "client": request.client.host if request.client else None,
        "method": request.method,
        "path": request.url.path,
        "status": response.status_code,
        "ms": (time.perf_counter() - started) * 1000,
    }
    _log.info(json.dumps(line))
    return response
