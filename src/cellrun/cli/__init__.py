"""The command. Exit codes: 0 ok, 1 the code failed, 2 usage, 3 plumbing, 4 authentication, 124 timeout,
130 interrupted, 141 whoever read our output has gone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cellrun.errors import AuthenticationError, CellrunError

if TYPE_CHECKING:
    from cellrun.settings import Settings

app = typer.Typer(
    name="cellrun",
    help="Run code in a Jupyter kernel, here or on a Jupyter server, and get everything back.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Server = Annotated[
    str | None,
    typer.Option(help="Address of a Jupyter server, or cellrun://host:port; without it, a kernel on this machine."),
]
TokenFile = Annotated[
    Path | None, typer.Option(help="File that holds the server's token, or the service's key.", metavar="F")
]
CaFile = Annotated[Path | None, typer.Option(help="Certificate authority (PEM) of the server.", metavar="F")]
Kernel = Annotated[str | None, typer.Option(help="Kernelspec to use.", metavar="NAME")]
SandboxOption = Annotated[
    Literal["auto", "none"] | None,
    typer.Option(help="What contains a kernel on this machine: the strongest that holds here; nothing."),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        help="What contained code may do beyond the default: network=full, memory=2GB, read_only=DIR, … Again for more.",
        metavar="NAME=VALUE",
    ),
]
Data = Annotated[Path | None, typer.Option(help="Folder of the service's database.", metavar="DIR")]
Timeout = Annotated[float | None, typer.Option(help="Seconds that a cell may run.", metavar="S")]
ImagesOption = Annotated[
    Literal["auto", "files", "off"] | None,
    typer.Option(help="Pictures: in the terminal where it can, else saved; always saved; not at all."),
]


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        from cellrun import __version__

        print(f"cellrun {__version__}")
        raise typer.Exit


@app.command("run")
def run_command(
    file: Annotated[
        str | None, typer.Argument(help="A script (cells at `# %%`), a notebook, or - for standard input.")
    ] = None,
    code: Annotated[str | None, typer.Option("-c", help="The code itself.", metavar="CODE")] = None,
    server: Server = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    kernel: Kernel = None,
    sandbox: SandboxOption = None,
    allow: Allow = None,
    timeout: Timeout = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
    as_ndjson: Annotated[bool, typer.Option("--ndjson", help="Print each event as a line of JSON.")] = False,
    save: Annotated[
        Path | None,
        typer.Option(help="Write what was run as a notebook; one that is there is replaced.", metavar="OUT.ipynb"),
    ] = None,
    images: ImagesOption = None,
) -> None:
    """Run a script, a notebook or a line of code.

    The cell's stdout and results go to stdout, its stderr, errors and our own words to stderr. Cells run
    until one fails. Ctrl-C interrupts the cell, a second one quits.
    """
    from cellrun.cli.execute import RunRequest, execute
    from cellrun.cli.sources import SourceError, read_source
    from cellrun.settings import load

    if (file is None) == (code is None):
        raise typer.BadParameter("give either a file (or -) or -c CODE")
    if as_json and as_ndjson:
        raise typer.BadParameter("--json and --ndjson exclude each other")
    if save is not None and save.suffix != ".ipynb":
        raise typer.BadParameter(f"a notebook is written, so the name must end in .ipynb: {save}", param_hint="--save")
    if save is not None and not save.parent.is_dir():
        raise typer.BadParameter(f"the folder of {save} does not exist", param_hint="--save")

    async def body() -> int:
        flags = {
            "server": server,
            "token_file": token_file,
            "ca_file": ca_file,
            "kernel": kernel,
            "sandbox": sandbox,
            "allow": allowed(allow),
            "timeout": timeout,
            "images": images,
        }
        settings = load(flags)
        try:
            source = read_source(file, code)
        except SourceError as error:
            raise typer.BadParameter(str(error)) from None
        if settings.kernel is None and settings.server is None and source.language not in ("", "python"):
            raise typer.BadParameter(
                f"the notebook is in {source.language}: name a kernelspec for that by --kernel (`cellrun doctor` lists those that there are)"
            )
        return await execute(
            RunRequest(source, settings, "json" if as_json else "ndjson" if as_ndjson else "text", save)
        )

    _exit_with(body())


@app.command("repl")
def repl_command(
    server: Server = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    kernel: Kernel = None,
    sandbox: SandboxOption = None,
    allow: Allow = None,
    timeout: Timeout = None,
    images: ImagesOption = None,
) -> None:
    """A prompt on a kernel: history, several lines, completion with Tab, Ctrl-C interrupts."""

    async def body() -> int:
        from cellrun.cli.repl import repl
        from cellrun.settings import load

        flags = {"server": server, "token_file": token_file, "ca_file": ca_file, "kernel": kernel, "sandbox": sandbox}
        return await repl(load({**flags, "allow": allowed(allow), "timeout": timeout, "images": images}))

    _exit_with(body())


@app.command("doctor")
def doctor_command(
    server: Server = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    kernel: Kernel = None,
    sandbox: SandboxOption = None,
    allow: Allow = None,
) -> None:
    """Say what was found on this machine, or on a server, what is missing and what to do."""

    async def body() -> int:
        from cellrun.cli.doctor import doctor
        from cellrun.settings import load

        flags = {"server": server, "token_file": token_file, "ca_file": ca_file, "kernel": kernel}
        return await doctor(load({**flags, "sandbox": sandbox, "allow": allowed(allow)}))

    _exit_with(body())


@app.command("serve")
def serve_command(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; others than this machine's need keys.", metavar="H")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0: any that is free.", metavar="P")] = None,
    data: Data = None,
    server: Server = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    kernel: Kernel = None,
    sandbox: SandboxOption = None,
    allow: Allow = None,
    timeout: Timeout = None,
    max_kernels: Annotated[int | None, typer.Option(help="Kernels at once.", metavar="N")] = None,
    preload: Annotated[
        str | None,
        typer.Option(help="Modules to load before the fork, with commas; auto: the usual ones.", metavar="MODULES"),
    ] = None,
) -> None:
    """Serve the code interpreter over HTTP. SIGTERM ends it when what runs has ended."""

    async def body() -> int:
        from cellrun.cli.serve import run_service
        from cellrun.settings import load

        flags: dict[str, Any] = {
            "host": host,
            "port": port,
            "data": data,
            "max_kernels": max_kernels,
            "preload": preload,
        }
        flags |= {"server": server, "token_file": token_file, "ca_file": ca_file, "kernel": kernel}
        flags |= {"sandbox": sandbox, "allow": allowed(allow), "timeout": timeout}
        return await run_service(load(flags))

    _exit_with(body())


@app.command("mcp")
def mcp_command(
    server: Server = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    kernel: Kernel = None,
    sandbox: SandboxOption = None,
    allow: Allow = None,
    timeout: Timeout = None,
) -> None:
    """Be an MCP server on standard input and output, for a program that starts it. Its kernels end with it."""

    async def body() -> int:
        from cellrun.cli.mcp import run_mcp
        from cellrun.settings import load

        flags: dict[str, Any] = {"server": server, "token_file": token_file, "ca_file": ca_file, "kernel": kernel}
        return await run_mcp(load(flags | {"sandbox": sandbox, "allow": allowed(allow), "timeout": timeout}))

    _exit_with(body())


keys_app = typer.Typer(help="Keys of the service, each of one tenant.", no_args_is_help=True)
app.add_typer(keys_app, name="keys")


@keys_app.command("create")
def keys_create_command(
    name: Annotated[str, typer.Argument(help="What the key is for; for yourself.")],
    tenant: Annotated[str, typer.Option(help="Whose sessions and runs it opens.", metavar="T")] = "default",
    data: Data = None,
) -> None:
    """Make a key. It is printed once, here and nowhere else: what is kept is a hash."""
    from cellrun.cli.keys import create

    _exit_with(_settled(lambda settings: create(settings, name, tenant), data))


@keys_app.command("list")
def keys_list_command(data: Data = None) -> None:
    """List the keys: id, tenant, name, when made, when revoked."""
    from cellrun.cli.keys import show

    _exit_with(_settled(show, data))


@keys_app.command("revoke")
def keys_revoke_command(id: Annotated[str, typer.Argument(help="The key's id.")], data: Data = None) -> None:
    """Make a key worthless, within two seconds also for a service that runs."""
    from cellrun.cli.keys import revoke

    _exit_with(_settled(lambda settings: revoke(settings, id), data))


async def _settled(body: Callable[[Settings], int], data: Path | None) -> int:
    from cellrun.settings import load

    return body(load({"data": data}))


def allowed(given: list[str] | None) -> dict[str, Any] | None:
    """The `--allow` flags by name; one that takes several values may come several times."""
    if not given:
        return None
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals:
            raise typer.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="--allow")
        found[name] = [*found[name], value] if isinstance(found.get(name), list) else [value]
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


kernelspec_app = typer.Typer(help="Our kernel for Jupyter programs.", no_args_is_help=True)
app.add_typer(kernelspec_app, name="kernelspec")


@kernelspec_app.callback()
def _kernelspec() -> None:
    """Our kernel for Jupyter programs."""


@kernelspec_app.command("install")
def kernelspec_install_command(
    name: Annotated[str, typer.Option(help="The name that programs choose it by.")] = "cellrun",
    display_name: Annotated[str, typer.Option(help="The name that people see.")] = "Python 3 (cellrun)",
    preload: Annotated[
        str, typer.Option(help="Modules to load before the fork, with commas; auto: the usual ones.", metavar="MODULES")
    ] = "auto",
    user: Annotated[bool, typer.Option("--user", help="For this user, instead of for this Python.")] = False,
    prefix: Annotated[str | None, typer.Option(help="For another environment.", metavar="DIR")] = None,
) -> None:
    """Install a kernelspec whose kernels are forked, in milliseconds, for Jupyter Server, nbclient and others."""
    from cellrun.cli.kernelspec import install

    if user and prefix is not None:
        raise typer.BadParameter("--user and --prefix exclude each other")
    try:
        modules = [module.strip() for module in preload.split(",") if module.strip()]
        folder = install(name, display_name, modules, user=user, prefix=prefix or (None if user else sys.prefix))
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--name") from None
    except OSError as error:
        raise SystemExit(_complain(error, 3)) from None
    print(f"installed {name} in {folder}")


def _exit_with(body: Coroutine[Any, Any, int]) -> None:
    """Runs it and exits; errors of the plumbing become one line and their exit code."""
    from cellrun.settings import SettingsError

    ended_by: list[int] = []
    try:
        code = asyncio.run(_until_signal(body, ended_by))
    except (KeyboardInterrupt, asyncio.CancelledError):
        code = 128 + ended_by[0] if ended_by else 130
    except AuthenticationError as error:
        code = _complain(error, 4)
        print("cellrun: --token-file, CELLRUN_TOKEN or CELLRUN_PASSWORD hold credentials", file=sys.stderr)
    except (SettingsError, ValueError) as error:
        code = _complain(error, 2)
    except CellrunError as error:
        code = _complain(error, 3)
    except BrokenPipeError:
        # Whoever read our output has gone (`| head`): nothing more can be said to them.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    except OSError as error:
        # A full disk behind our output, a current folder that is gone. What is still buffered cannot be written either.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = _complain(OSError(": ".join(filter(None, [error.strerror or str(error), error.filename]))), 3)
    raise SystemExit(code)


async def _until_signal(body: Coroutine[Any, Any, int], ended_by: list[int]) -> int:
    """A signal that asks the command to end cancels it, so that its kernel and folders end with it."""
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        ended_by.append(number)
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end, number)
    return await body


def _complain(error: Exception, code: int) -> int:
    print(f"cellrun: {error}", file=sys.stderr)
    return code


def main() -> None:
    """The entry point of the command."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115
    app()
