"""Large values by reference: what is kept apart, who may have it, and when it goes."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cellrun.blobs import LARGE, Blob, apart, together
from cellrun.event_log import End, Entry, entry_of
from cellrun.events import Display
from cellrun.service.database import Database, RunRow
from cellrun.service.store import Store
from tests.service.running import NDJSON, answer, is_whole, lines, problem, run, watch

PIXELS = bytes(range(256)) * 400
PNG = base64.b64encode(PIXELS).decode("ascii")
SHOW = f"""
from IPython.display import publish_display_data
publish_display_data({{"text/plain": "a picture", "image/png": {PNG!r}}})
"""


def blobs_of(object: dict[str, Any]) -> dict[str, bytes]:
    parts = apart(object)
    return {} if parts is None else {blob.sha256.hex(): blob.data for blob in parts[1]}


@pytest.mark.parametrize(
    ("mime", "value", "kept"),
    [
        ("image/png", PNG, PIXELS),
        ("image/png", PNG[:-8] + "\n" + PNG[-8:], None),  # not what its bytes would become again
        ("image/svg+xml", "<svg>" + "é" * LARGE, None),
        ("text/html", "abcd" * LARGE, None),  # would be base64, but means itself
        ("application/json", {"rows": list(range(LARGE))}, None),
    ],
)
def test_a_large_value_is_kept_apart_and_comes_back_as_it_was(mime: str, value: Any, kept: bytes | None) -> None:
    whole = {"type": "display", "seq": 1, "data": {"text/plain": "small", mime: value}, "metadata": {}}
    parts = apart(whole)
    assert parts is not None
    slim, (blob,) = parts
    assert slim["data"] == {"text/plain": "small"}
    assert slim["blobs"][mime]["sha256"] == blob.sha256.hex() == hashlib.sha256(blob.data).hexdigest()
    assert slim["blobs"][mime]["size"] == len(blob.data)
    if kept is not None:
        assert blob.data == kept
    assert together(json.loads(json.dumps(slim)), {blob.sha256: blob.data}.get) == whole


@pytest.mark.parametrize(
    "object",
    [
        {"type": "stdout", "text": "x" * LARGE},
        {"data": {"image/png": PNG[:100]}},
        {"data": {"text/html": "\ud800" * LARGE}},  # has no bytes
        {"data": {"application/json": [float("nan")] * LARGE}},  # nor has this
        {"data": {"application/x": 1.5}},
    ],
)
def test_what_is_small_or_no_bytes_stays_where_it_is(object: dict[str, Any]) -> None:
    assert apart(object) is None


async def test_a_result_and_its_events_name_large_values_and_give_them_by_their_hash(
    http: aiohttp.ClientSession,
) -> None:
    whole = await run(http, "refer", SHOW)
    assert whole["outputs"][0]["data"]["image/png"] == PNG
    where = f"/v1/runs/{whole['execution_id']}"
    assert await answer(http, "GET", where) == whole
    slim = await answer(http, "GET", where, params={"blobs": "reference"})
    (output,) = slim["outputs"]
    assert output["data"] == {"text/plain": "a picture"}
    told = output["blobs"]["image/png"]
    assert told == {"sha256": hashlib.sha256(PIXELS).hexdigest(), "size": len(PIXELS), "encoding": "base64"}

    events = await watch(http, whole["execution_id"])
    assert is_whole(events)
    assert [event["data"]["image/png"] for event in events if event["type"] == "display"] == [PNG]
    async with http.get(f"{where}/events", headers=NDJSON, params={"blobs": "reference"}) as response:
        named = [event async for event in lines(response)]
    assert is_whole(named)
    assert [event["blobs"]["image/png"] for event in named if event["type"] == "display"] == [told]

    async with http.get(f"/v1/blobs/{told['sha256']}") as response:
        assert await response.read() == PIXELS
        assert response.content_type == "application/octet-stream"
        assert response.headers["Content-Disposition"] == "attachment"
        assert response.headers["Content-Security-Policy"].startswith("sandbox")
        tag = response.headers["ETag"]
    async with http.get(f"/v1/blobs/{told['sha256']}", headers={"If-None-Match": tag}) as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_the_answer_to_the_request_itself_can_have_references_and_a_live_stream_too(
    http: aiohttp.ClientSession,
) -> None:
    body: Any = {"json": {"code": SHOW}, "params": {"blobs": "reference"}}
    slim = await answer(http, "POST", "/v1/run", **body)
    assert "image/png" in slim["outputs"][0]["blobs"]
    async with http.post("/v1/run", headers=NDJSON, **body) as response:
        events = [event async for event in lines(response)]
    assert is_whole(events)
    assert any("image/png" in event.get("blobs", {}) for event in events)
    assert PNG[:1_000] not in json.dumps(events)


async def test_only_pictures_that_a_browser_cannot_run_are_answered_as_what_they_say(
    http: aiohttp.ClientSession,
) -> None:
    slim = await answer(http, "POST", "/v1/run", json={"code": SHOW}, params={"blobs": "reference"})
    where = f"/v1/blobs/{slim['outputs'][0]['blobs']['image/png']['sha256']}"
    for type, told in (("image/png", "image/png"), ("image/svg+xml", None), ("text/html", None), ("image/png\n", None)):
        async with http.get(where, params={"type": type}) as response:
            assert response.content_type == (told or "application/octet-stream")
    await problem(http, "GET", "/v1/blobs/" + "0" * 64, "not_found", 404)
    await problem(http, "GET", "/v1/blobs/no-hash", "bad_request", 400)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path)
    for id in ("a", "b"):
        row = RunRow(id=id, tenant="t", session=None, created=0.0, digest=b"d")
        await store.write(partial(Database.add_run, run=row, code="code"))
    yield store
    await store.aclose()


def shown(seq: int) -> Entry:
    return entry_of(Display(seq=seq, execution_id="a", data={"image/png": PNG}, metadata={}, display_id=None))


async def test_a_value_that_is_shown_often_is_stored_once_and_goes_with_its_last_use(store: Store) -> None:
    hash = hashlib.sha256(PIXELS).digest()

    async def kept() -> bytes | None:
        return await store.ask(lambda database: database.blob("t", hash))

    empty = (await store.ask(lambda database: database.usage()))["t"]
    for run_id in ("a", "b"):
        await store.append(run_id, [shown(seq) for seq in range(1, 6)], 0, None)
    assert await kept() == PIXELS
    assert await store.ask(lambda database: database.blob("another", hash)) is None
    assert (await store.ask(lambda database: database.size())) < 3 * len(PIXELS)
    assert [entry.data for entry in await store.read("a", 4, 1)] == [shown(5).data]
    result = json.dumps({"outputs": [{"type": "display", "data": {"image/png": PNG}}]}).encode()
    slim = json.dumps({"outputs": [apart({"type": "display", "data": {"image/png": PNG}})[0]]}).encode()  # type: ignore[index]
    end = End("ok", result, slim, (Blob(hash, PIXELS),))
    for run_id, ended in (("a", 1.0), ("b", 2.0)):
        await store.append(run_id, [], 5, None)  # all its events are forgotten
        assert await kept() == PIXELS
        await store.write(partial(Database.end_run, id=run_id, ended=ended, end=end))
    stored = await store.ask(lambda database: database.result("b", slim=False))
    assert stored is not None
    assert json.loads(stored) == json.loads(result)

    assert await store.write(lambda database: database.forget_runs(1.5, 10)) == 1
    assert await kept() == PIXELS
    await store.write(lambda database: database.forget_runs(2.5, 10))
    assert await kept() is None
    assert await store.ask(lambda database: database.usage()) == {}
    assert empty == 2 * len("code")
