"""What the contents take and refuse, and what cellrun's own session makes of them."""

from __future__ import annotations

import pytest

import cellrun
from tests.interfaces.jupyter.conftest import Served
from tests.interfaces.jupyter.talk import http_of, start, talking


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"type": "notebook", "content": {"cells": [], "a": NaN}}', "NaN"),
        ('{"type": "notebook", "content": {"cells": [], "a": [-Infinity]}}', "NaN"),
        ('{"type": "notebook", "content": {"cells": [], "a": 1e999}}', "NaN"),
        ('{"type": "notebook"}', "`content`"),
        ('{"type": "notebook", "content": null}', "`content`"),
        ('{"type": "notebook", "content": []}', "`content`"),
        ('{"type": "file", "format": "json"}', "`content`"),
    ],
)
async def test_a_notebook_that_could_not_be_read_is_not_written(local: str, body: str, said: str) -> None:
    async with http_of(local) as http:
        id = await start(http)
        async with http.put(f"api/contents/{id}/n.ipynb", data=body) as answer:
            assert answer.status == 400
            assert said in (await answer.json())["message"]
        async with http.get(f"api/contents/{id}/n.ipynb") as answer:
            assert answer.status == 404
        await http.delete(f"api/kernels/{id}")


async def test_of_a_notebook_that_code_has_written_badly_the_text_can_be_read(local: str) -> None:
    async with http_of(local) as http:
        id = await start(http)
        async with talking(http, id) as talk:
            await talk.run("open('n.ipynb', 'w').write('{\"a\": NaN}')")
        async with http.get(f"api/contents/{id}/n.ipynb") as answer:
            assert answer.status == 400
            assert "'n.ipynb' is no notebook" in (await answer.json())["message"]
        async with http.get(f"api/contents/{id}/n.ipynb", params={"format": "text"}) as answer:
            assert (await answer.json())["content"] == '{"a": NaN}'
        await http.delete(f"api/kernels/{id}")


async def test_a_file_at_the_root_is_refused_with_what_the_root_has(local: str) -> None:
    async with http_of(local) as http:
        for body in ({"type": "file", "format": "text", "content": "1"}, {"type": "directory"}):
            async with http.put("api/contents/é.txt", json=body) as answer:
                assert answer.status == 400
                assert "in the folder of a kernel" in (await answer.json())["message"]


async def test_a_session_of_cellrun_has_its_kernels_files_below_the_kernels_id(served: Served) -> None:
    async with cellrun.AsyncSession(cellrun.JupyterServer(served.url, token=served.ada)) as session:
        await session.run("x = 1")
        for path in ("é.txt", "deep/é.txt"):
            with pytest.raises(PermissionError, match="in the folder of a kernel"):
                await session.files.write(path, "text")
        (folder,) = await session.files.list()
        assert folder.is_dir
        await session.files.write(f"{folder.path}/é.txt", "text")
        assert (await session.run("print(open('é.txt').read())")).stdout == "text\n"
        assert await session.files.read(f"{folder.path}/é.txt") == b"text"
