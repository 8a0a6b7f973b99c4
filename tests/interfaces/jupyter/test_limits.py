"""How long kernels live at the Jupyter address, how many there may be, and the end of the service."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.interfaces.jupyter.talk import JSON, http_of, printed, start, talking
from tests.service.running import Service, none_left
from tests.support.waiting import HANG, PROCESS, SLACK, eventually


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Two kernels at once, idle for eight seconds, a second a cell."""
    variables = {
        "CELLRUN_INTERFACES": "jupyter",
        "CELLRUN_QUOTA_KERNELS": "2",
        "CELLRUN_IDLE_TIMEOUT": f"{SLACK:g}",  # none may end while a busy machine comes to the next request
        "CELLRUN_MAX_TIMEOUT": "1",
        "CELLRUN_TIMEOUT": "1",
    }
    service = Service(tmp_path_factory.mktemp("tight"), (), variables).start()
    yield service
    service.end()


async def test_there_are_no_more_kernels_than_the_quota(tight: Service) -> None:
    async with http_of(f"{tight.url}/jupyter/") as http:
        ids = await asyncio.gather(start(http), start(http))
        async with http.post("api/kernels") as answer:
            assert answer.status == 429
            assert "2 kernels" in (await answer.json())["message"]
        async with http.post(f"{tight.url}/v1/run", json={"code": "1"}) as answer:
            assert answer.status == 429  # they count together
        for id in ids:
            await http.delete(f"api/kernels/{id}")
        await http.delete(f"api/kernels/{await start(http)}")  # at once, while the others are removed


async def test_a_cell_that_takes_too_long_is_interrupted_and_told_why(tight: Service) -> None:
    async with http_of(f"{tight.url}/jupyter/") as http:
        id = await start(http)
        async with talking(http, id) as talk:
            told = await talk.run("import time; time.sleep(60)")
            assert "a cell may take 1 s" in printed(told, "stderr")
            assert any(message["msg_type"] == "error" for message in told)
        await http.delete(f"api/kernels/{id}")


async def test_a_kernel_that_is_not_used_ends(tight: Service) -> None:
    async with http_of(f"{tight.url}/jupyter/") as http:
        id = await start(http)
        async with talking(http, id) as talk:
            async with asyncio.timeout(SLACK + HANG):
                while "closed" not in (last := await talk.receive()):
                    pass
            assert last["closed"] is not None
        async with http.get(f"api/kernels/{id}") as answer:
            assert answer.status == 404
        async with http.get(f"{tight.url}/metrics") as answer:
            text = await answer.text()
        assert 'cellrun_jupyter_kernels_ended_total{cause="not used"} 1.0' in text
        assert "cellrun_jupyter_kernels 0.0" in text


async def test_the_service_waits_for_cells_takes_no_new_ones_and_leaves_nothing(tmp_path: Path) -> None:
    service = Service(tmp_path / "own", (), {"CELLRUN_INTERFACES": "jupyter"})
    service.folder.mkdir()
    service.start()
    async with http_of(f"{service.url}/jupyter/") as http:
        kernel = await start(http)
        async with talking(http, kernel) as talk, talking(http, kernel, v1=True) as late:
            wait = "import os, time\nprint('on', flush=True)\nwhile not os.path.exists('go'): time.sleep(0.02)"
            id = await talk.execute(f"{wait}\nprint('through')")
            await talk.receive()
            family = service.family()
            service.terminate()
            await eventually(lambda: "takes no new runs" in service.log_text())

            refused = [message for message in await late.run("print('too late')") if message["channel"] == "shell"]
            assert "the service ends" in refused[0]["content"]["evalue"]
            async with http.post("api/kernels") as answer:
                assert answer.status == 503
                assert "the service ends" in (await answer.json())["message"]
            with pytest.raises(aiohttp.WSServerHandshakeError, match="503"):
                await http.ws_connect(f"api/kernels/{kernel}/channels")

            body = {"type": "file", "format": "text", "content": ""}
            async with http.put(f"api/contents/{kernel}/go", json=body) as answer:
                assert answer.status == 201
            assert printed(await talk.until_end(id)) == "on\nthrough\n"
            while "closed" not in await talk.receive():
                pass
    assert await asyncio.to_thread(service.wait, PROCESS) == 0
    await none_left(family)


@pytest.mark.wide
@pytest.mark.timeout(180)
async def test_a_client_that_takes_nothing_for_a_minute_is_cut_off_and_the_others_miss_nothing(local: str) -> None:
    async with http_of(local) as http:
        kernel = await start(http)
        async with (
            talking(http, kernel, v1=True, session="stuck"),
            talking(http, kernel, v1=True, session="reads") as talk,
        ):
            id = await talk.execute("for n in range(400): print(f'{n:06}' + 100_000 * 'x')")
            told: list[JSON] = []
            async with asyncio.timeout(150):
                while not told or told[-1]["content"].get("execution_state") != "idle" or told[-1]["parent"] != id:
                    told.append(await talk.receive())
                    assert "closed" not in told[-1]
            lines = printed(told).splitlines()
            assert [int(line[:6]) for line in lines] == list(range(400))
            async with http.get(f"api/kernels/{kernel}") as answer:
                assert (await answer.json())["connections"] == 1
        await http.delete(f"api/kernels/{kernel}")


@pytest.mark.wide
async def test_switched_off_it_is_not_there(tmp_path: Path) -> None:
    service = Service(tmp_path / "own", (), {"CELLRUN_INTERFACES": "none"})
    service.folder.mkdir()
    service.start()
    async with aiohttp.ClientSession() as http, http.get(f"{service.url}/jupyter/api") as answer:
        assert answer.status == 404
    service.end()
