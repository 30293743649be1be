"""The service answers what the model says, and refuses what it cannot take with a clean status."""

import asyncio
import base64
import io
import threading

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cardamage.errors import ConfigError
from cardamage.models import build_model
from cardamage.predict.model import TrainedModel
from cardamage.training.checkpoint import CheckpointInfo
from tests.helpers.bright_network import EXPERIMENT, bright_is_dent, half_bright

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx

from cardamage.serve.app import Limits, application
from cardamage.serve.server import listen, trusted_hosts


class Service:
    """Asks an application without a network in between."""

    def __init__(self, model, **limits):
        self.app = application(model, "bright", Limits(**limits), hosts=["localhost"])

    async def asked(self, method, path, **options):
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, **options)

    def __call__(self, method, path, **options):
        return asyncio.run(self.asked(method, path, **options))

    def predict(self, content, form="json"):
        return self("POST", f"/predict?format={form}", content=content)


@pytest.fixture(scope="module")
def model():
    network = build_model(EXPERIMENT.model, 3)
    network.load_state_dict(bright_is_dent())
    return TrainedModel(
        CheckpointInfo(
            epoch=1,
            model=EXPERIMENT.model.model_dump(mode="json"),
            class_names=EXPERIMENT.data.class_names,
            image_size=EXPERIMENT.data.image_size,
            config_hash="",
        ),
        network,
    )


@pytest.fixture
def service(model):
    return Service(model)


def photo(height=60, width=80, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(half_bright(height, width)).convert("RGB").save(stream, kind)
    return stream.getvalue()


def read(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def test_every_format_holds_the_models_map(service, model, tmp_path):
    expected = model.predict(Image.open(io.BytesIO(photo()))).class_ids
    found = service.predict(photo()).json()
    assert (found["width"], found["height"]) == (80, 60)
    assert found["shares"]["dent"] == pytest.approx((expected == 1).mean())
    np.testing.assert_array_equal(read(base64.b64decode(found["map"])), expected)
    png = service.predict(photo(), "png")
    assert png.headers["content-type"] == "image/png"
    np.testing.assert_array_equal(read(png.content), expected)
    overlay = service.predict(photo(), "overlay")
    assert read(overlay.content).shape == (60, 80, 3)
    (tmp_path / "coco.json").write_bytes(service.predict(photo(), "coco").content)
    coco = COCO(tmp_path / "coco.json")
    drawn = np.zeros((60, 80), np.uint8)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        drawn[coco.annToMask(annotation) == 1] = annotation["category_id"]
    np.testing.assert_array_equal(drawn, expected)


def test_it_says_what_it_is_and_its_page_loads_nothing_from_elsewhere(service):
    about = service("GET", "/model").json()
    assert [kind["name"] for kind in about["classes"]] == ["background", "dent", "scratch"]
    assert about["image_size"] == {"height": 32, "width": 32}
    page = service("GET", "/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace("http-equiv", "")


@pytest.mark.parametrize(
    ("status", "content", "form"),
    [
        (415, b"no photo at all", "json"),
        (415, photo(300, 300)[:150], "json"),
        (415, b"\x89PNG\r\n\x1a\n" + bytes(100), "png"),
        (400, b"", "json"),
        (400, photo(), "gif"),
        (413, photo(600, 800), "json"),  # of pixels
        (413, bytes(60_000), "json"),  # of bytes
    ],
)
def test_what_it_cannot_take_has_a_clean_status_and_a_reason(model, status, content, form):
    answer = Service(model, megabytes=0.05, megapixels=0.1).predict(content, form)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert "skip_broken" not in answer.text


def test_other_methods_places_and_hosts_are_refused(service):
    assert service("GET", "/predict").status_code == 405
    assert service("GET", "/etc/passwd").status_code == 404
    assert service("GET", "/model", headers={"host": "evil.example"}).status_code == 400
    assert trusted_hosts("0.0.0.0") is None
    assert "localhost" in trusted_hosts("127.0.0.1")


def test_more_than_it_holds_is_refused_and_what_it_holds_is_answered(model, monkeypatch):
    service, go = Service(model, at_once=1, waiting=2), threading.Event()
    predict = type(model).predict

    def wait(*args, **options):
        assert go.wait(30)
        return predict(*args, **options)

    monkeypatch.setattr(type(model), "predict", wait)

    async def ask_all():
        asked = [
            asyncio.ensure_future(service.asked("POST", "/predict", content=photo()))
            for _ in range(20)
        ]
        while sum(each.done() for each in asked) < 17:
            await asyncio.sleep(0.01)
        go.set()
        return [answer.status_code for answer in await asyncio.gather(*asked)]

    statuses = asyncio.run(ask_all())
    assert sorted(statuses) == [200] * 3 + [503] * 17


def test_a_photo_that_never_arrives_is_given_up(model):
    service = Service(model, seconds=0.05)

    async def slowly():
        yield photo()[:50]
        await asyncio.sleep(0.5)
        yield photo()[50:]

    assert service("POST", "/predict", content=slowly()).status_code == 408


def test_a_port_that_is_taken_is_one_line():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=str(port)):
            listen("127.0.0.1", port)
    for host, port in (("127.0.0.1", 70000), ("192.0.2.1", 0)):
        with pytest.raises(ConfigError, match="--port"):
            listen(host, port)


def test_the_command_refuses_limits_that_admit_nothing(bright):
    for option in ("--at-once", "--max-mb"):
        assert option in bright.refuses("jobs/serve.py", "bright", option, "0")
