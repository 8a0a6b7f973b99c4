"""Contexts: kept apart, listed, restarted, removed, and where they begin."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from e2b import NotFoundException, SandboxException
from e2b_code_interpreter import Sandbox

from cellrun.service.e2b.contexts import Contexts
from tests.service.test_hub import hub_of


def test_contexts_share_no_variables(sandbox: Sandbox) -> None:
    sandbox.run_code("owner = 'default'")
    one, other = sandbox.create_code_context(), sandbox.create_code_context(language="python")
    sandbox.run_code("owner = 'one'", context=one)
    assert sandbox.run_code("owner", context=one).text == "one"
    assert sandbox.run_code("owner").text == "default"
    missing = sandbox.run_code("owner", context=other).error
    assert missing is not None
    assert missing.name == "NameError"
    listed = {context.id: context for context in sandbox.list_code_contexts()}
    assert {one.id, other.id} < listed.keys()
    assert (listed[one.id].language, listed[one.id].cwd) == ("python", one.cwd)
    for context in (one, other):
        sandbox.remove_code_context(context)
    assert not {one.id, other.id} & {context.id for context in sandbox.list_code_contexts()}


def test_the_folder_that_is_told_is_the_one_that_code_runs_in(sandbox: Sandbox) -> None:
    plain = sandbox.create_code_context()
    for asked, ending in (("data/raw", "/data/raw"), ("/home/user/project", "/project"), ("/usr", "/usr")):
        context = sandbox.create_code_context(cwd=asked)
        assert context.cwd.endswith(ending)
        assert sandbox.run_code("import os; os.getcwd()", context=context).text == context.cwd
        sandbox.remove_code_context(context)
    home = sandbox.create_code_context(cwd="/home/user/")
    assert home.cwd.rpartition("/")[2] == plain.cwd.rpartition("/")[2]
    for context in (plain, home):
        sandbox.remove_code_context(context)


def test_a_restart_takes_the_variables_and_leaves_folder_and_files(sandbox: Sandbox) -> None:
    context = sandbox.create_code_context(cwd="work")
    sandbox.run_code("x = 1; import os; open('kept', 'w').close(); os.chdir('/')", context=context)
    assert sandbox.run_code("os.getcwd()", context=context).text == "/"  # a cell's own change is left alone
    sandbox.restart_code_context(context.id)
    after = sandbox.run_code("import os; 'x' in globals(), os.getcwd(), os.listdir()", context=context)
    assert after.text == str((False, context.cwd, ["kept"]))
    assert after.logs.stderr == []  # whoever restarts it knows
    sandbox.remove_code_context(context)


def test_a_new_context_has_no_names_but_its_own(sandbox: Sandbox) -> None:
    context = sandbox.create_code_context()
    shown = sandbox.run_code("[name for name in globals() if not name.startswith('_')]", context=context)
    assert shown.text == "['In', 'Out', 'get_ipython', 'exit', 'quit', 'open']"
    sandbox.remove_code_context(context)


async def test_a_context_whose_making_is_given_up_at_any_moment_is_not_there(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        contexts = Contexts(hub)
        for steps in range(12):
            making = asyncio.create_task(contexts.create("t", "data"))
            for _ in range(steps):
                await asyncio.sleep(0)
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
            assert making.cancelled()
            assert contexts.all("t") == []
            assert hub.sessions("t") == []


def test_what_cannot_be_leaves_no_context(sandbox: Sandbox) -> None:
    before = sorted(context.id for context in sandbox.list_code_contexts())
    with pytest.raises(SandboxException, match="No such file or directory: '/nowhere'"):
        sandbox.create_code_context(cwd="/nowhere")
    with pytest.raises(SandboxException, match="this service runs Python; it has no kernel for 'r'"):
        sandbox.create_code_context(language="r")
    with pytest.raises(SandboxException, match=r"400 .* 'javascript'"):
        sandbox.run_code("1", language="javascript")
    assert sorted(context.id for context in sandbox.list_code_contexts()) == before


def test_an_unknown_context_is_not_found(sandbox: Sandbox) -> None:
    gone = sandbox.create_code_context()
    sandbox.remove_code_context(gone)
    with pytest.raises(NotFoundException, match="there is no context"):
        sandbox.run_code("1", context=gone)
    for ask in (sandbox.remove_code_context, sandbox.restart_code_context):
        for id in (gone.id, "unheard-of"):
            with pytest.raises(NotFoundException, match="there is no context"):
                ask(id)
