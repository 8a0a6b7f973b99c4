"""Everything that code shows arrives, whole and in order, over every provider."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path

import pytest

from cellrun import AsyncSession, Unsupported, events, fold
from cellrun.events import Comm, Display, DisplayUpdate, Event, Finished, Payload, Started, Stdout
from cellrun.result import DisplayOutput, StreamOutput
from tests.contract.conftest import Way
from tests.support.waiting import HANG, PROCESS

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def collect(session: AsyncSession, code: str) -> list[Event]:
    async with session.stream(code, timeout=30) as stream:
        seen = [event async for event in stream]
        assert fold(seen) == stream.result
    assert [event.seq for event in seen] == list(range(1, len(seen) + 1))
    assert [type(event) for event in seen].count(Finished) == 1
    assert isinstance(seen[-1], Finished)
    assert {event.execution_id for event in seen} == {stream.execution_id}
    return seen


async def test_a_session_keeps_its_variables_and_counts_its_cells(shared: AsyncSession) -> None:
    first = await shared.run("x = 41")
    second = await shared.run("x + 1")
    assert first.ok
    assert (first.text, second.text) == ("", "42")
    assert second.execution_count == (first.execution_count or 0) + 1


async def test_streams_and_displays_keep_their_order(shared: AsyncSession) -> None:
    result = await shared.run(
        "import sys\nfrom IPython.display import display\n"
        "print('one'); print('two', file=sys.stderr); display({'text/plain': 'three'}, raw=True); print('four'); 5"
    )
    shown = [output.text if isinstance(output, StreamOutput) else "display" for output in result.outputs]
    assert shown == ["one\n", "two\n", "display", "four\n", "display"]
    assert result.text == "one\ntwo\nthree\nfour\n5"
    assert (result.stdout, result.stderr) == ("one\nfour\n", "two\n")


async def test_every_type_of_a_bundle_and_its_metadata_are_kept(shared: AsyncSession) -> None:
    result = await shared.run(
        "from IPython.display import display\n"
        "display({'text/plain': 'p', 'text/html': '<b>h</b>', 'application/json': {'a': [1]}, 'x/y': 'z'},"
        " raw=True, metadata={'text/html': {'isolated': True}})"
    )
    (output,) = result.outputs
    assert isinstance(output, DisplayOutput)
    assert output.data == {"text/plain": "p", "text/html": "<b>h</b>", "application/json": {"a": [1]}, "x/y": "z"}
    assert output.metadata == {"text/html": {"isolated": True}}


async def test_displays_are_updated_in_place_also_from_a_later_cell(shared: AsyncSession) -> None:
    result = await shared.run(
        "from IPython.display import display\nh = display('first', display_id='d')\nprint('between')\nh.update('second')"
    )
    assert result.text == "'second'\nbetween"
    later = await collect(shared, "h.update('third')")
    (update,) = [event for event in later if isinstance(event, DisplayUpdate)]
    assert (update.display_id, update.data["text/plain"]) == ("d", "'third'")
    assert fold(later).text == "'third'"
    outputs = shared.to_notebook().cells[-2].outputs
    assert outputs[0].data["text/plain"] == "'third'"


async def test_clear_output_is_honoured(shared: AsyncSession) -> None:
    result = await shared.run(
        "from IPython.display import clear_output\nprint('gone'); clear_output()\nprint('stays a while')\n"
        "clear_output(wait=True)\nprint('stays')"
    )
    assert result.text == "stays"


async def test_an_error_is_data(shared: AsyncSession) -> None:
    result = await shared.run("print('before')\n1/0")
    assert result.status == "error"
    assert result.error is not None
    assert (result.error.name, result.error.value) == ("ZeroDivisionError", "division by zero")
    assert "\x1b" not in result.error.traceback
    assert "\x1b" in result.error.traceback_ansi
    assert "----> 2 1/0" in result.error.traceback
    assert result.stdout == "before\n"
    assert (await shared.run("'still here'")).ok


async def test_pages_and_other_payloads_reach_the_caller(shared: AsyncSession) -> None:
    seen = await collect(shared, "len?")
    (payload,) = [event for event in seen if isinstance(event, Payload)]
    assert payload.source == "page"
    assert "Return the number of items" in fold(seen).text


async def test_comms_pass_through_with_binary_buffers(shared: AsyncSession) -> None:
    seen = await collect(
        shared,
        "from comm import create_comm\nc = create_comm(target_name='t', data={'a': 1}, buffers=[b'\\x00\\xff', b''])\n"
        "c.send({'b': 2}, buffers=[bytes(range(256)) * 100])\nc.close()",
    )
    comms = [event for event in seen if isinstance(event, Comm)]
    assert [comm.kind for comm in comms] == ["open", "message", "close"]
    assert (comms[0].target_name, comms[0].buffers) == ("t", (b"\x00\xff", b""))
    assert comms[1].buffers == (bytes(range(256)) * 100,)
    assert fold(seen).outputs == ()


async def test_a_message_to_a_comm_arrives_in_the_kernel(shared: AsyncSession, way: Way) -> None:
    if way.service:
        with pytest.raises(Unsupported, match="does not offer"):
            await shared.send_comm("c", {})
        return
    seen = await collect(
        shared,
        "from comm import create_comm\ngot = []\nc = create_comm(target_name='t')\nc.on_msg(lambda m: got.append(m))",
    )
    (opened,) = [event for event in seen if isinstance(event, Comm)]
    await shared.send_comm(opened.comm_id, {"x": 1}, buffers=(b"\x01\x02",))
    result = await shared.run("print(got[0]['content']['data'], bytes(got[0]['buffers'][0]))")
    assert result.stdout == "{'x': 1} b'\\x01\\x02'\n"


async def test_subprocesses_and_descriptors_are_captured(shared: AsyncSession) -> None:
    result = await shared.run(
        "import os, subprocess\nsubprocess.run(['echo', 'from a child'])\nos.write(1, b'raw\\n');"
    )
    assert "from a child\n" in result.stdout
    assert "raw\n" in result.stdout


async def test_carriage_returns_and_colours_are_kept_and_offered_rendered(shared: AsyncSession) -> None:
    result = await shared.run(r"print('10%\r50%\r\x1b[32m100%\x1b[0m')")
    assert result.stdout == "10%\r50%\r\x1b[32m100%\x1b[0m\n"
    assert result.text == "100%"


async def test_output_after_the_end_goes_to_listeners_and_to_no_other_run(
    shared: AsyncSession, way: Way, tmp_path: Path
) -> None:
    if way.service:
        with pytest.raises(Unsupported, match="does not offer"):
            shared.late()
        return
    late: list[Event] = []

    async def listen() -> None:
        async for event in shared.late():
            late.append(event)
            return

    listening = asyncio.create_task(listen())
    await asyncio.sleep(0)
    files = way.kind != "gateway"  # which has none, and no walls either
    go = "end-of-the-cell" if files else str(tmp_path / "end-of-the-cell")
    first = await collect(
        shared,
        f"import os, threading, time\ndef later():\n    while not os.path.exists({go!r}): time.sleep(0.005)\n"
        "    print('too late', flush=True)\nt = threading.Thread(target=later); t.start()",
    )
    if files:
        await shared.files.write(go, b"")
    else:
        Path(go).touch()
    await asyncio.wait_for(listening, HANG)
    if files:
        await shared.files.delete(go)
    other = await shared.run("t.join(); 'mine'")
    assert other.text == "'mine'"
    (event,) = late
    assert isinstance(event, Stdout)
    assert (event.seq, event.text, event.execution_id) == (0, "too late\n", first[0].execution_id)


async def test_a_silent_run_counts_nothing_and_keeps_what_it_prints(shared: AsyncSession, way: Way) -> None:
    if way.service:
        with pytest.raises(Unsupported, match="does not offer"):
            await shared.run("1", silent=True)
        return
    before = (await shared.run("1")).execution_count or 0
    result = await shared.run("print('said'); 1", silent=True)
    assert (result.text, result.ok) == ("said", True)
    assert (await shared.run("1")).execution_count == before + 1


async def test_the_kernel_announces_the_start_before_any_output(shared: AsyncSession) -> None:
    seen = await collect(shared, "print('x')")
    assert isinstance(seen[0], Started)
    assert seen[0].execution_count == fold(seen).execution_count


async def test_unicode_and_lone_surrogates_arrive(shared: AsyncSession) -> None:
    result = await shared.run("print('ü 漢 🎉'); 'é'")
    assert result.text == "ü 漢 🎉\n'é'"


async def test_a_picture_of_ten_megabytes_arrives_whole(shared: AsyncSession) -> None:
    result = await shared.run(
        "import os\nfrom IPython.display import display, Image\nraw = b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom(10_000_000)\n"
        "display(Image(raw, format='png'))\nimport hashlib; print(hashlib.sha256(raw).hexdigest())",
        timeout=PROCESS,
    )
    import hashlib

    (image,) = result.images
    assert hashlib.sha256(image.data).hexdigest() == result.stdout.strip()


async def test_a_plot_is_a_picture(shared: AsyncSession) -> None:
    result = await shared.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]); plt.show()", timeout=PROCESS)
    (image,) = result.images
    assert image.mime == "image/png"
    assert image.data.startswith(b"\x89PNG")


async def test_the_notebook_of_a_session_is_valid(session: AsyncSession) -> None:
    import nbformat

    for code in ("1", "print(2)", "1/0", "from IPython.display import HTML; HTML('<i>x</i>')", "len?"):
        await session.run(code)
    notebook = session.to_notebook()
    nbformat.validate(notebook)
    assert [cell.outputs[0].output_type for cell in notebook.cells] == [
        "execute_result",
        "stream",
        "error",
        "execute_result",
        "display_data",
    ]


async def test_completion_inspection_and_completeness_are_asked_of_the_kernel(shared: AsyncSession, way: Way) -> None:
    if way.service:
        with pytest.raises(Unsupported, match="does not offer"):
            await shared.complete("long_na")
        return
    await shared.run("long_name_of_mine = 1")
    reply = await shared.complete("long_na", timeout=HANG)
    assert "long_name_of_mine" in reply["matches"]
    assert (await shared.inspect("len", timeout=HANG))["found"]
    assert await shared.is_complete("for i in range(3):", timeout=HANG) == "incomplete"
    assert await shared.is_complete("1", timeout=HANG) == "complete"


async def test_display_events_hold_base64_as_sent() -> None:
    event = Display(seq=1, execution_id="e", data={"image/png": base64.b64encode(b"x").decode()}, metadata={})
    finished = events.Finished(seq=2, execution_id="e", status="ok", execution_count=1, duration=0.0)
    assert fold([event, finished]).images[0].data == b"x"
