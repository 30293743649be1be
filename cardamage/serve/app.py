"""The HTTP service: photos in, class maps out. What it offers is in docs/serve.md."""

from __future__ import annotations

import asyncio
import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from cardamage.data.images import decode_image, encoded, upright_size
from cardamage.errors import DataError
from cardamage.labels import colour
from cardamage.predict.instances import PhotoInstances, coco_content, find_instances
from cardamage.predict.model import Prediction, TrainedModel
from cardamage.predict.outputs import palette_png

Form = Literal["json", "png", "overlay", "coco"]

_PAGE = Path(__file__).with_name("page.html")
_NAME, _REMEDY = "the photo", "send a JPEG or a PNG"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src blob: data:; connect-src 'self'; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class Limits:
    """What one request, and all of them together, may take.

    Attributes:
        megabytes: of a photo's file.
        megapixels: of a photo.
        at_once: photos that are decoded and predicted on at a time.
        waiting: further photos that are held in memory; more requests are answered with 503.
        seconds: that sending a photo may take.
    """

    megabytes: float = 25.0
    megapixels: float = 50.0
    at_once: int = 2
    waiting: int = 30
    seconds: float = 30.0


class Service:
    """The handlers of one model's requests."""

    def __init__(self, model: TrainedModel, name: str, limits: Limits) -> None:
        self._model, self._name, self._limits = model, name, limits
        self._held = 0
        self._working: anyio.CapacityLimiter | None = None

    async def page(self, _: Request) -> Response:
        """The page to drop a photo on."""
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=_HEADERS)

    async def about(self, _: Request) -> Response:
        """What model this is."""
        info = self._model.info
        height, width = info.image_size
        return JSONResponse(
            {
                "name": self._name,
                "epoch": info.epoch,
                "classes": [
                    {"id": i, "name": name, "colour": colour(i)}
                    for i, name in enumerate(info.class_names)
                ],
                "image_size": {"height": height, "width": width},
                "limits": {
                    "megabytes": self._limits.megabytes,
                    "megapixels": self._limits.megapixels,
                },
            }
        )

    async def predict(self, request: Request) -> Response:
        """The answer for the photo that is the request's body."""
        form = request.query_params.get("format", "json")
        if form not in get_args(Form):
            raise HTTPException(400, f"format={form} is unknown; allowed: {_listed()}")
        if self._held >= self._limits.at_once + self._limits.waiting:
            raise HTTPException(503, "too many photos at once; try again", {"Retry-After": "1"})
        self._held += 1
        try:
            content = await self._body(request)
            if self._working is None:  # made here, for it belongs to the loop that serves
                self._working = anyio.CapacityLimiter(self._limits.at_once)
            return await anyio.to_thread.run_sync(
                self._answer, content, form, limiter=self._working
            )
        finally:
            self._held -= 1

    async def _body(self, request: Request) -> bytes:
        most = int(self._limits.megabytes * 1e6)
        too_large = HTTPException(
            413, f"the photo has more than {self._limits.megabytes:g} MB; send a smaller one"
        )
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > most:
            raise too_large
        content = bytearray()
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    content += part
                    if len(content) > most:
                        raise too_large
        except TimeoutError:
            raise HTTPException(
                408, f"the photo took longer than {self._limits.seconds:g} s to send"
            ) from None
        except ClientDisconnect:
            raise HTTPException(400, "the connection ended before the photo did") from None
        if not content:
            raise HTTPException(400, "the body is empty; send the bytes of a photo")
        return bytes(content)

    def _answer(self, content: bytes, form: str) -> Response:
        """Runs in a thread of its own."""
        try:
            width, height = upright_size(content, _NAME, _REMEDY)
            if width * height > self._limits.megapixels * 1e6:
                raise HTTPException(
                    413,
                    f"the photo has {width} x {height} pixels, and at most "
                    f"{self._limits.megapixels:g} megapixels are taken; send a smaller one",
                )
            image = decode_image(content, name=_NAME, remedy=_REMEDY)
        except DataError as error:
            raise HTTPException(415, str(error)) from None
        found = self._model.predict(image)
        assert isinstance(found, Prediction)  # noqa: S101 - of one photo it is one
        match form:
            case "png":
                return Response(palette_png(found.class_ids), media_type="image/png")
            case "overlay":
                jpeg = encoded(found.overlay(), "JPEG", quality=90)
                return Response(jpeg, media_type="image/jpeg")
            case "coco":
                return JSONResponse(self._coco(found))
            case _:
                return JSONResponse(self._json(found))

    def _json(self, found: Prediction) -> dict[str, Any]:
        height, width = found.class_ids.shape
        return {
            "width": width,
            "height": height,
            "shares": found.shares(),
            "map": base64.b64encode(palette_png(found.class_ids)).decode(),
        }

    def _coco(self, found: Prediction) -> dict[str, Any]:
        height, width = found.class_ids.shape
        regions = find_instances(found.class_ids, found.confidence)
        photo = PhotoInstances("photo", width, height, regions)
        return coco_content([photo], found.class_names, f"{self._name}, epoch {self._epoch}")

    @property
    def _epoch(self) -> int:
        return self._model.info.epoch


def application(
    model: TrainedModel, name: str, limits: Limits, *, hosts: list[str] | None = None
) -> Starlette:
    """The service of a model.

    Args:
        name: of the run or file, as it is shown.
        hosts: the names under which it may be asked, so that no page of another site, whose name
            was made to lead here, can read the answers; None for any.
    """
    service = Service(model, name, limits)
    checks = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts)] if hosts else []
    return Starlette(
        routes=[
            Route("/", service.page),
            Route("/model", service.about),
            Route("/predict", service.predict, methods=["POST"]),
        ],
        middleware=checks,
        exception_handlers={HTTPException: _refuse},
    )


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for these
    headers = {
        **(error.headers or {}),
        **({"Connection": "close"} if error.status_code == 413 else {}),
    }
    return JSONResponse({"error": error.detail}, error.status_code, headers)


def _listed() -> str:
    return ", ".join(get_args(Form))
