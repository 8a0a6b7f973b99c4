"""Open WebUI's own code interpreter, unmodified, against the Jupyter address."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest
from bench.open_webui import fetch

from tests.interfaces.jupyter.conftest import Served
from tests.interfaces.jupyter.talk import http_of
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def open_webui(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fetch(tmp_path_factory.mktemp("open-webui"))


async def test_it_runs_code_with_a_token(open_webui: Any, served: Served) -> None:
    out = await open_webui.execute_code_jupyter(served.url, "print(1)\n6 * 7", served.ada)
    assert out == {"stdout": "1", "stderr": "", "result": "42"}


async def test_it_logs_in_with_a_password(open_webui: Any, served: Served) -> None:
    url = served.url.replace("127.0.0.1", "localhost")
    out = await open_webui.execute_code_jupyter(url, "print(2)", "", served.ada)
    assert out == {"stdout": "2", "stderr": "", "result": ""}


async def test_a_wrong_token_and_a_wrong_password_are_refused(open_webui: Any, served: Served) -> None:
    wrong = "cr_" + "0" * 12 + "_" + "x" * 43
    for credentials in ((wrong, ""), ("", wrong)):
        out = await open_webui.execute_code_jupyter(served.url, "print(1)", *credentials)
        assert out["stdout"] == ""
        assert "401" in out["stderr"]


async def test_without_keys_anything_will_do(open_webui: Any, local: str) -> None:
    for credentials in (("", ""), ("any", ""), ("", "any")):
        out = await open_webui.execute_code_jupyter(local.replace("127.0.0.1", "localhost"), "print(3)", *credentials)
        assert out == {"stdout": "3", "stderr": "", "result": ""}


async def test_nothing_of_one_call_is_there_in_the_next(open_webui: Any, local: str) -> None:
    await open_webui.execute_code_jupyter(local, "x = 1; open('left', 'w').close()", "t")
    out = await open_webui.execute_code_jupyter(local, "import os; print('x' in globals(), os.listdir())", "t")
    assert out["stdout"] == "False []"


async def test_five_megabytes_arrive(open_webui: Any, local: str) -> None:
    out = await open_webui.execute_code_jupyter(local, "print('é\\n' * 2_500_000)", "t")
    assert out["stdout"] == ("é\n" * 2_500_000).strip()
    assert out["stderr"] == ""


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("from IPython.display import HTML\nHTML('<table><tr><th>a</th><td>1</td></tr></table>')", "a\t1"),
        ("from IPython.display import display\ndisplay({'text/html': '<b>bold</b>'}, raw=True)", "bold"),
        ("import pandas as pd\npd.DataFrame({'a': [1]})", "a\n0  1"),
    ],
)
async def test_html_comes_as_text(open_webui: Any, local: str, code: str, result: str) -> None:
    out = await open_webui.execute_code_jupyter(local, code, "t")
    assert (out["result"], out["stderr"]) == (result, "")


_PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


_NOISE = (
    "import os\nfrom IPython.display import Image\nfrom PIL import Image as P\n"
    "P.frombytes('RGB', (620, 620), os.urandom(620 * 620 * 3)).save('noise.png')\nImage('noise.png')"
)


@pytest.mark.parametrize(
    "code",
    [
        _PLOT,
        "%config InlineBackend.figure_formats = ['svg']\n" + _PLOT,
        "%config InlineBackend.figure_formats = ['jpeg']\n" + _PLOT,
        _NOISE,
    ],
    ids=["png", "svg", "jpeg", "larger than a frame"],
)
async def test_pictures_come_as_png(open_webui: Any, local: str, code: str) -> None:
    out = await open_webui.execute_code_jupyter(local, code, "t")
    scheme, _, data = out["result"].partition(",")
    assert (scheme, out["stderr"]) == ("data:image/png;base64", "")
    assert base64.b64decode(data).startswith(b"\x89PNG")
    assert len(data) < 1_000_000


async def test_a_long_result_and_a_long_error_are_cut_and_say_so(open_webui: Any, local: str) -> None:
    out = await open_webui.execute_code_jupyter(local, "'z' * 3_000_000", "t")
    assert "characters left out" in out["result"]
    assert len(out["result"]) < 1_000_000
    out = await open_webui.execute_code_jupyter(local, "raise ValueError('y' * 3_000_000)", "t")
    assert "characters left out" in out["stderr"]


async def test_the_death_of_a_kernel_is_told_with_its_cause(open_webui: Any, local: str) -> None:
    out = await open_webui.execute_code_jupyter(
        # What is printed in its last moment dies with it: ZeroMQ sends from a thread of its own.
        local,
        "print('a', flush=True)\nimport os, time; time.sleep(3); os.kill(os.getpid(), 9)",
        "t",
    )
    assert out["stdout"] == "a"
    assert "SIGKILL" in out["stderr"]


async def test_a_client_that_gives_up_leaves_nothing_running(open_webui: Any, local: str) -> None:
    out = await open_webui.execute_code_jupyter(local, "import time\nwhile True: time.sleep(0.1)", "t", "", 1)
    assert "timed out" in out["stderr"]
    async with http_of(local) as http, http.get("api/kernels") as answer:
        assert await answer.json() == []


async def test_many_at_once(open_webui: Any, local: str) -> None:
    outs = await asyncio.gather(*(open_webui.execute_code_jupyter(local, f"print({n})", "t") for n in range(12)))
    assert [out["stdout"] for out in outs] == [str(n) for n in range(12)]


async def test_the_token_is_in_no_log(open_webui: Any, served: Served) -> None:
    await open_webui.execute_code_jupyter(served.url, "print(1)", served.bob)
    await eventually(lambda: "/channels" in served.service.log_text())
    assert served.bob not in served.service.log_text()
    assert "token=" not in served.service.log_text()
