"""Never run: what users' type checkers are to see."""

from __future__ import annotations

from typing import assert_type

import cellrun


async def use() -> None:
    async with cellrun.AsyncSession() as session:
        result = await session.run("1", timeout=None)
        assert_type(result, cellrun.Result)
        assert_type(result.text, str)
        assert_type(result.images, tuple[cellrun.Image, ...])
        async with session.stream("1") as stream:
            async for event in stream:
                assert_type(event, cellrun.Event)
                if isinstance(event, cellrun.Stdout):
                    assert_type(event.text, str)
        assert_type(stream.result, cellrun.Result)
        assert_type(await session.files.read("x"), bytes)
    assert_type(await cellrun.execute_code_jupyter("", ""), dict[str, str])


def use_blocking() -> None:
    with cellrun.Session("http://127.0.0.1:8888/") as session:
        assert_type(session.run("1"), cellrun.Result)
        for event in session.stream("1"):
            assert_type(event, cellrun.Event)
    assert_type(cellrun.run("1"), cellrun.Result)
