"""What the documentation shows is executed, and what it lists is compared with the code.

How a page is written so that it can be run:

- ```python blocks of one page share a namespace, in order; `await` may stand at the top level. If a block has
  comments `# → text`, these lines together are what it prints.
- ```console blocks: a line `$ command` is run by a shell, the lines after it are what it says. Each block has a
  folder of its own.
- `…` in expected text stands for anything.
- The addresses of `SERVERS` below are replaced by those of running servers, and `"…"` after `token=`, `password=` or `key=`
  in the same block by what that server wants; the files `token` and `ca.pem` hold the same.
- ```py and ```sh blocks are not run.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import doctest
import importlib
import inspect
import io
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tomllib
import types
import typing
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import typer

import cellrun
from cellrun.cli import app
from cellrun.errors import CellrunError
from cellrun.events import BaseEvent
from cellrun.result import Output
from cellrun.settings import Settings
from tests.service.running import Service
from tests.support.servers import Server
from tests.support.waiting import PROCESS

ROOT: Final = Path(__file__).parents[2]
DOCS: Final = ROOT / "docs"
PAGES: Final = [ROOT / "README.md", DOCS / "tutorial.md", *sorted((DOCS / "howto").glob("*.md"))]
ALL_PAGES: Final = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

SERVERS: Final = {
    "http://127.0.0.1:8888/": "free_server",
    "http://password.example/": "password_server",
    "http://open.example/": "open_server",
    "https://secure.example/": "tls_server",
    "http://gateway.example/": "gateway",
    "cellrun://run.example": "keyed_service",
}
KINDS: Final = {"KiB": 1024, "MiB": 1024 * 1024}


@pytest.fixture(scope="module")
def keyed_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    service = Service(tmp_path_factory.mktemp("service"))
    key = service.add_key("docs")
    service.start()
    yield Server(service.url.replace("http://", "cellrun://"), token=key)
    service.end()


def named(paths: list[Path], *, long: Collection[str] = ()) -> pytest.MarkDecorator:
    """`long`: names of pages whose blocks take so long that `make soak` runs them."""
    marked = [pytest.param(path, marks=pytest.mark.wide) if path.stem in long else path for path in paths]
    return pytest.mark.parametrize("page", marked, ids=[str(path.relative_to(ROOT)) for path in paths])


def blocks(page: Path, language: str) -> list[tuple[int, str]]:
    """The line and the text of every block of this language; blocks within a list are indented."""
    text = page.read_text("utf-8")
    found = []
    for match in re.finditer(rf"^( *)```{language}\n(.*?)^\1```$", text, re.MULTILINE | re.DOTALL):
        lines = [line.removeprefix(match[1]) for line in match[2].splitlines(keepends=True)]
        found.append((text.count("\n", 0, match.start()) + 2, "".join(lines)))
    return found


def matches(said: str, expected: str) -> bool:
    pattern = ".*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, said.strip(), re.DOTALL) is not None


def section(page: Path, title: str) -> str:
    """The text below a heading, up to the next heading of its level or above."""
    match = re.search(rf"^(#+) {re.escape(title)}\n(.*?)(?=^#{{1,2}} |\Z)", page.read_text("utf-8"), re.M | re.S)
    assert match is not None, f"{page.name} has no section {title!r}"
    return match[2]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and home, so that nothing is written to the repository."""
    home = tmp_path / "home"
    work = tmp_path / "work"
    home.mkdir()
    work.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    # A running test is marked by this, and ipykernel then does not capture the output of subprocesses.
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    monkeypatch.chdir(work)
    return work


class Substitution:
    """Puts the addresses and secrets of running servers into a block, and takes them out of what it says."""

    def __init__(self, request: pytest.FixtureRequest, folder: Path) -> None:
        self._request = request
        self._folder = folder

    def apply(self, code: str) -> str:
        for address, server in self._servers(code):
            code = code.replace(address, server.url)
            code = code.replace('token="…"', f"token={server.token!r}")
            code = code.replace('password="…"', f"password={server.password!r}")
            code = code.replace('key="…"', f"key={server.token!r}")
            (self._folder / "token").write_text(server.token, "utf-8")
            if server.ca_file is not None:
                shutil.copy(server.ca_file, self._folder / "ca.pem")
        return code

    def take_out(self, said: str, code: str) -> str:
        for address, server in self._servers(code):
            said = said.replace(server.url, address)
        return said

    def _servers(self, code: str) -> Iterator[tuple[str, Server]]:
        for address, fixture in SERVERS.items():
            if address in code:
                yield address, self._request.getfixturevalue(fixture)


@pytest.fixture
def substitution(request: pytest.FixtureRequest, here: Path) -> Substitution:
    return Substitution(request, here)


@named(
    [page for page in PAGES if blocks(page, "python")],
    long={"containment", "jupyter-server", "local-kernels", "mcp", "remote", "timeouts-and-interrupts"},
)
async def test_the_python_blocks_of_a_page_run_and_print_what_they_say(page: Path, substitution: Substitution) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, block in blocks(page, "python"):
        tree = compile("\n" * (line - 1) + substitution.apply(block), str(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            pending = eval(tree, namespace)
            if inspect.iscoroutine(pending):
                await pending
        said = substitution.take_out(out.getvalue(), block)
        expected = re.findall(r"# → (.*)$", block, re.MULTILINE)
        if expected or said.strip():
            assert matches(said, "\n".join(expected)), f"{page.name}:{line} printed:\n{said}"


@pytest.mark.timeout(600)  # a page has up to 17 commands
@named([page for page in PAGES if blocks(page, "console")], long={"command", "containment", "jupyter-programs"})
def test_the_console_blocks_of_a_page_say_what_the_page_says(
    page: Path, substitution: Substitution, here: Path
) -> None:
    def run(line: int, block: str, code: str) -> None:
        folder = here / f"block-{line}"
        shutil.copytree(here, folder, ignore=shutil.ignore_patterns("block-*"))
        commands = re.split(r"^\$ ", code, flags=re.MULTILINE)[1:]
        for part in commands:
            command, _, expected = part.partition("\n")
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=PROCESS,
                check=False,
            )
            said = substitution.take_out(ended.stdout.decode("utf-8"), block)
            assert matches(said, expected), f"{page.name}:{line} {command!r} said:\n{said}"

    found = [(line, block, substitution.apply(block)) for line, block in blocks(page, "console")]
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(run, *block) for block in found]:
            done.result()


def test_every_command_that_is_shown_is_in_a_console_block() -> None:
    for page in PAGES:
        shown = re.findall(r"^\$ .*$", page.read_text("utf-8"), re.MULTILINE)
        run = [line for _, block in blocks(page, "console") for line in block.splitlines() if line.startswith("$ ")]
        assert shown == run, page


def modules() -> list[types.ModuleType]:
    # The adapters bring frameworks that take seconds to import; their page has the examples.
    names = [
        info.name
        for info in pkgutil.walk_packages(cellrun.__path__, "cellrun.")
        if not info.name.startswith("cellrun.adapters.")
    ]
    return [cellrun, *(importlib.import_module(name) for name in names if not name.endswith(".__main__"))]


EXAMPLES: Final = [
    example for module in modules() for example in doctest.DocTestFinder().find(module) if example.examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=[example.name for example in EXAMPLES])
def test_the_examples_in_docstrings_are_right(example: doctest.DocTest, here: Path) -> None:
    said = io.StringIO()
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.write, clear_globs=False)
    assert result.failed == 0, said.getvalue()


def subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from subclasses(sub)


ERRORS: Final = [
    cls for cls in [CellrunError, *subclasses(CellrunError)] if cls.__module__.partition(".")[0] == "cellrun"
]


@pytest.mark.parametrize("event", typing.get_args(cellrun.Event), ids=lambda event: event.__name__)
def test_every_event_and_every_field_of_it_is_documented(event: type[Any]) -> None:
    page = DOCS / "reference" / "events.md"
    common = {field.name for field in dataclasses.fields(BaseEvent)}
    introduction = page.read_text("utf-8").partition("\n## ")[0]
    text = section(page, event.__name__)
    for field in dataclasses.fields(event):
        where = introduction if field.name in common else text
        assert f"`{field.name}`" in where, field.name


def test_the_event_types_of_the_wire_are_documented() -> None:
    from cellrun import wire

    text = section(DOCS / "reference" / "wire.md", "An event")
    for name in wire._NAME_OF.values():
        assert f"`{name}`" in text


def test_the_keys_of_a_result_on_the_wire_are_documented() -> None:
    text = section(DOCS / "reference" / "wire.md", "A Result")
    result = cellrun.fold([cellrun.Finished(seq=1, execution_id="e", status="ok", execution_count=None, duration=0.0)])
    for key in result.to_dict():
        assert f"`{key}`" in text


@pytest.mark.parametrize("cls", [cellrun.Result, *typing.get_args(Output), cellrun.Image], ids=lambda c: c.__name__)
def test_everything_public_of_a_result_and_its_outputs_is_documented(cls: type[Any]) -> None:
    text = (DOCS / "reference" / "result.md").read_text("utf-8")
    assert cls.__name__ in text
    public = {field.name for field in dataclasses.fields(cls)}
    public |= {name for name in vars(cls) if not name.startswith("_")} - {"note"}
    for name in public:
        assert re.search(rf"`{name}(\(\))?`", text), name


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_every_error_is_documented_with_its_code_and_retryability(error: type[CellrunError]) -> None:
    text = (DOCS / "reference" / "errors.md").read_text("utf-8")
    if error.__name__ in ("Refused", "NotFound"):  # not exported; in a sentence
        assert f"`{error.__name__}`" in text
        assert error.code == "connection_failed"
        return
    retryable = "yes" if error.retryable else "no"
    assert f"| `{error.__name__}` | `{error.code}` | {retryable} |" in text


def test_every_setting_is_documented_with_its_variable() -> None:
    text = (DOCS / "reference" / "settings.md").read_text("utf-8")
    for name in Settings.model_fields:
        assert re.search(rf"\| `CELLRUN_{name.upper()}` \| `{name}` \|", text), name
    assert "`CELLRUN_CONFIG`" in text
    documented = set(re.findall(r"`CELLRUN_([A-Z_]+)`", text)) - {"CONFIG"}
    assert documented == {name.upper() for name in Settings.model_fields}


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Each command by its name, those of a group with the group's name before it."""
    for name, command in vars(group)["commands"].items():
        if "commands" in vars(command):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


COMMANDS: Final[dict[str, Any]] = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_every_option_of_it_is_documented(command: str) -> None:
    text = section(DOCS / "reference" / "command.md", f"cellrun {command}")
    options = set()
    for parameter in COMMANDS[command].params:
        if parameter.param_type_name == "argument":
            assert f"`{parameter.name}`" in text
            continue
        for option in parameter.opts:
            options.add(option)
            assert re.search(rf"`{option}[` ]", text), option
    assert set(re.findall(r"`(--?[a-z-]+)[` ]", text)) == options


def test_every_flag_of_the_settings_page_is_an_option_of_a_command() -> None:
    flags = set(re.findall(r"^\| `(--[a-z-]+)`", (DOCS / "reference" / "settings.md").read_text("utf-8"), re.M))
    options = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}
    assert flags <= options
    assert {f"--{name.replace('_', '-')}" for name in Settings.model_fields} & options == flags


def test_every_exit_code_is_documented() -> None:
    from cellrun.cli.execute import EXIT_CODES

    text = section(DOCS / "reference" / "command.md", "Exit codes")
    for code in {*EXIT_CODES.values(), 2, 3, 4, 141}:
        assert f"| {code} |" in text


def test_every_limit_is_documented_with_its_default() -> None:
    text = (DOCS / "reference" / "limits.md").read_text("utf-8")
    for field in dataclasses.fields(cellrun.Limits):
        row = re.search(rf"^\| `{field.name}` \| ([^|]+) \|", text, re.MULTILINE)
        assert row is not None, field.name
        number, _, unit = row[1].partition(" ")
        written = None if number == "None" else float(number) * KINDS.get(unit, 1)
        assert written == field.default


def test_every_field_of_a_policy_is_documented_with_its_default() -> None:
    text = section(DOCS / "explanation" / "containment.md", "SandboxPolicy")
    named = section(DOCS / "reference" / "library.md", "SandboxPolicy")
    for field in dataclasses.fields(cellrun.SandboxPolicy):
        row = re.search(rf"^\| `{field.name}` \| ([^|]+) \|", text, re.MULTILINE)
        assert row is not None, field.name
        number, _, unit = row[1].strip("`").partition(" ")
        written = ast.literal_eval(number) * KINDS[unit] if unit else ast.literal_eval(number)
        assert written == field.default, field.name
        assert f"`{field.name}`" in named


def test_every_exported_name_is_mentioned_in_the_reference() -> None:
    text = "".join(page.read_text("utf-8") for page in (DOCS / "reference").glob("*.md"))
    missing = [name for name in cellrun.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def test_every_method_of_a_session_and_every_parameter_of_a_run_is_documented() -> None:
    page = DOCS / "reference" / "library.md"
    text = section(page, "AsyncSession")
    for name in [name for name in dir(cellrun.AsyncSession) if not name.startswith("_")]:
        assert re.search(rf"\b{name}\b", text), name
    for name in {*parameters(cellrun.AsyncSession.run), *parameters(cellrun.AsyncSession.stream)} - {"code"}:
        assert f"| `{name}` |" in text
    stream = section(page, "AsyncStream")
    for name in [name for name in dir(cellrun.AsyncStream) if not name.startswith("_")]:
        assert re.search(rf"\b{name}\b", stream), name
    assert all(re.search(rf"\b{name}=", section(page, "run")) for name in parameters(cellrun.run)[1:])


@pytest.mark.parametrize(
    "provider", [cellrun.LocalKernels, cellrun.JupyterServer, cellrun.CellrunService], ids=lambda cls: cls.__name__
)
def test_every_parameter_of_a_provider_is_documented(provider: type[Any]) -> None:
    text = (DOCS / "reference" / "library.md").read_text("utf-8").partition(f"### {provider.__name__}\n")[2]
    text = text.partition("\n##")[0]
    for name in parameters(provider):
        assert f"| `{name}` |" in text, name


def test_the_blocking_session_lacks_only_what_the_reference_says() -> None:
    def names(cls: type[Any]) -> set[str]:
        return {name for name in dir(cls) if not name.startswith("_")}

    text = section(DOCS / "reference" / "library.md", "Session and Stream")
    missing = names(cellrun.AsyncSession) - names(cellrun.Session) - {"aclose"}
    assert "except " + " and ".join(f"`{name}`" for name in sorted(missing)) + "," in text


def test_every_difference_to_stock_ipykernel_that_is_meant_is_documented() -> None:
    from tests.differential.test_same_events import INTENDED

    text = section(DOCS / "explanation" / "forked-kernels.md", "The lean kernel")
    documented = re.findall(r"^\| (?!what \|)([^|`]+) \|", text, re.MULTILINE)
    assert documented == list(INTENDED)


def test_the_architecture_shows_the_floors_that_are_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]["contracts"]
    layers = [re.findall(r"cellrun\.\w+", layer) for layer in contracts[0]["layers"]]
    drawing = section(ROOT / "ARCHITECTURE.md", "The floors").partition("```\n")[2].partition("```")[0]
    drawn = [re.findall(r"cellrun\.\w+", line) for line in drawing.splitlines()]
    assert [sorted(layer) for layer in drawn] == [sorted(layer) for layer in layers]


@named(ALL_PAGES)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in link:
            assert (page.parent / link.partition("#")[0]).exists(), link


def test_every_page_can_be_reached_from_the_index() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    for page in DOCS.rglob("*.md"):
        if page.name != "index.md":
            assert f"({page.relative_to(DOCS)})" in index
