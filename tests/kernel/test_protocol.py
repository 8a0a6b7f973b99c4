"""Jupyter's own suite for kernels, on ours: forked by its provisioner, and started as a program."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import jupyter_kernel_test
import pytest
from jupyter_kernel_test.msgspec_v5 import validate_message

from tests.support.forked import FORKED, STARTED
from tests.support.waiting import PROCESS

_TIMEOUT: Final = int(PROCESS)


@pytest.fixture(scope="module", autouse=True)
def _completions_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """jedi reads its cache while another process of the user writes it, and then has no completions; in a new home all
    workers write one at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(jupyter_kernel_test, "TIMEOUT", _TIMEOUT)
        yield


class Suite(jupyter_kernel_test.KernelTests):
    """What its attributes name is tested; the rest of it would be skipped."""

    __test__ = False

    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples = [
        {"text": "zi", "matches": {"zip"}},
        {"text": "import itertools; itertools.zip_l", "matches": {"zip_longest"}},
        {"text": "%alias_m", "matches": {"%alias_magic"}},
    ]
    complete_code_samples = ["print('hello')", "def f():\n    return 1\n\n", "?print", "%time 1"]
    incomplete_code_samples = ["print('''hello", "def f():\n    x = 1", "for i in range(3):", "%%timeit"]
    invalid_code_samples = ["import = 7q", "foo bar"]
    code_page_something = "zip?"
    code_generate_error = "raise"
    code_execute_result = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {"code": "from IPython.display import HTML; HTML('<b>1</b>')", "mime": "text/html", "result": "<b>1</b>"},
    ]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>test</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
        {"code": "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()", "mime": "image/png"},
    ]
    code_history_pattern = "1?2*"
    supported_history_operations = ("tail", "range", "search")  # type: ignore[assignment]
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.kc.context.destroy(linger=0)

    def test_every_test_of_the_suite_has_what_it_needs(self) -> None:
        for name, value in vars(jupyter_kernel_test.KernelTests).items():
            if not callable(value) and not name.startswith("_") and name not in ("kernel_name", "kc", "km"):
                assert getattr(self, name), name

    def flush_channels(self) -> None:
        """All that is on its way has come when the statuses of one more request have: the suite's own waits a tenth of a second, which a
        busy machine takes for one message."""
        msg_id = self.kc.kernel_info()
        self._until_idle(msg_id)
        while self.kc.get_shell_msg(timeout=_TIMEOUT)["parent_header"].get("msg_id") != msg_id:
            pass

    def execute_helper(
        self,
        code: str,
        timeout: int = _TIMEOUT,
        silent: bool = False,
        store_history: bool = True,
        stop_on_error: bool = True,
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """As the suite's own, which after the reply waits for each message on IOPub for a tenth of a second."""
        msg_id = self.kc.execute(code, silent=silent, store_history=store_history, stop_on_error=stop_on_error)
        reply = self.get_non_kernel_info_reply(timeout=timeout)
        assert reply is not None
        validate_message(reply, "execute_reply", msg_id)
        messages: list[dict[str, Any]] = []
        while not messages or messages[-1]["content"].get("execution_state") != "idle":
            message = self.kc.get_iopub_msg(timeout=_TIMEOUT)
            validate_message(message, message["msg_type"], msg_id)
            messages.append(message)
        assert messages[0]["content"].get("execution_state") == "busy"
        assert [message for message in messages[1:-1] if message["msg_type"] == "status"] == []
        inputs = [message["content"]["code"] for message in messages if message["msg_type"] == "execute_input"]
        assert set(inputs) <= {code}
        return reply, [message for message in messages[1:-1] if message["msg_type"] != "execute_input"]

    # What the suite has no attributes for.

    def test_input_is_asked_for_and_taken(self) -> None:
        self.flush_channels()
        msg_id = self.kc.execute("name = input('who? '); print(name)", allow_stdin=True)
        asked = self.kc.get_stdin_msg(timeout=_TIMEOUT)
        assert asked["parent_header"]["msg_id"] == msg_id
        assert asked["content"] == {"prompt": "who? ", "password": False}
        self.kc.input("ada")
        reply = self.get_non_kernel_info_reply(timeout=_TIMEOUT)
        assert reply is not None
        validate_message(reply, "execute_reply", msg_id)
        assert reply["content"]["status"] == "ok"
        assert "ada\n" in [message["content"].get("text") for message in self._until_idle(msg_id)]

    def test_a_password_is_asked_for_as_one(self) -> None:
        self.flush_channels()
        msg_id = self.kc.execute("import getpass; len(getpass.getpass('word? '))", allow_stdin=True)
        asked = self.kc.get_stdin_msg(timeout=_TIMEOUT)
        assert asked["content"] == {"prompt": "word? ", "password": True}
        self.kc.input("1234")
        results = [message for message in self._until_idle(msg_id) if message["msg_type"] == "execute_result"]
        assert results[0]["content"]["data"] == {"text/plain": "4"}

    def test_input_without_a_front_end_that_can_ask_is_an_error(self) -> None:
        self.flush_channels()
        msg_id = self.kc.execute("input('who? ')", allow_stdin=False)
        reply = self.get_non_kernel_info_reply(timeout=_TIMEOUT)
        assert reply is not None
        assert reply["parent_header"]["msg_id"] == msg_id
        assert reply["content"]["ename"] == "StdinNotImplementedError"

    def test_a_comm_is_opened_answered_and_closed_from_either_side(self) -> None:
        self.flush_channels()
        code = """
from comm import create_comm
def opened(comm, message):
    comm.on_msg(lambda message: comm.send({'twice': 2 * message['content']['data']['value']}))
    comm.send({'opened with': message['content']['data']})
get_ipython().kernel.comm_manager.register_target('doubling', opened)
mine = create_comm(target_name='theirs', data={'from': 'the kernel'})
"""
        (mine,) = self._execute(code)
        assert (mine["msg_type"], mine["content"]["target_name"]) == ("comm_open", "theirs")

        opened = self._send("comm_open", {"comm_id": "c1", "target_name": "doubling", "data": {"a": 1}})
        assert [message["content"]["data"] for message in opened] == [{"opened with": {"a": 1}}]
        answered = self._send("comm_msg", {"comm_id": "c1", "data": {"value": 21}})
        assert [message["content"]["data"] for message in answered] == [{"twice": 42}]
        message_id = self.kc.comm_info("doubling")
        reply = self.get_non_kernel_info_reply(timeout=_TIMEOUT)
        assert reply is not None
        validate_message(reply, "comm_info_reply", message_id)
        assert list(reply["content"]["comms"]) == ["c1"]
        assert self._send("comm_close", {"comm_id": "c1", "data": {}}) == []
        # There is nobody for it any more, and the comm library says so on stderr.
        left = self._send("comm_msg", {"comm_id": "c1", "data": {"value": 1}})
        assert [message for message in left if message["msg_type"] != "stream"] == []
        (closed,) = self._execute("mine.close()")
        assert (closed["msg_type"], closed["content"]["comm_id"]) == ("comm_close", mine["content"]["comm_id"])

    def _execute(self, code: str) -> list[dict[str, Any]]:
        """What a cell sends on IOPub, without its input and its statuses."""
        messages = self._until_idle(self.kc.execute(code))
        reply = self.get_non_kernel_info_reply(timeout=_TIMEOUT)
        assert reply is not None
        assert reply["content"]["status"] == "ok"
        return [message for message in messages if message["msg_type"] not in ("status", "execute_input")]

    def _send(self, msg_type: str, content: dict[str, Any]) -> list[dict[str, Any]]:
        """A message on shell that is not answered there, and what came of it on IOPub."""
        message = self.kc.session.msg(msg_type, content)
        self.kc.shell_channel.send(message)
        return [each for each in self._until_idle(message["header"]["msg_id"]) if each["msg_type"] != "status"]

    def _until_idle(self, msg_id: str) -> list[dict[str, Any]]:
        messages = []
        while True:
            message = self.kc.get_iopub_msg(timeout=_TIMEOUT)
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            messages.append(message)
            if message["content"].get("execution_state") == "idle":
                return messages


class TestForked(Suite):
    __test__ = True
    kernel_name = FORKED


@pytest.mark.wide
class TestStarted(Suite):
    __test__ = True
    kernel_name = STARTED


class WelcomeSuite(jupyter_kernel_test.IopubWelcomeTests):
    __test__ = False
    support_iopub_welcome = True

    @classmethod
    def tearDownClass(cls) -> None:
        super().tearDownClass()
        cls.kc.context.destroy(linger=0)


class TestForkedWelcome(WelcomeSuite):
    __test__ = True
    kernel_name = FORKED


@pytest.mark.wide
class TestStartedWelcome(WelcomeSuite):
    __test__ = True
    kernel_name = STARTED
