"""The network: there is none, unless the policy allows it; and what is left of it then."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.abuse.attacking import attack, denied, not_there, shares_uid
from tests.abuse.conftest import Host, Inmate, Outside

# What is nowhere sent but to this machine, so that it can be compared.
LOCAL = [
    pytest.param("socket.create_connection(('127.0.0.1', port), 5).close()", id="connect by TCP"),
    pytest.param("socket.create_connection(('localhost', port), 5).close()", id="connect to a name"),
    pytest.param("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', udp))", id="send by UDP"),
    pytest.param("socket.create_server(('127.0.0.1', 0)).close()", id="listen by TCP"),
    pytest.param("socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(('127.0.0.1', 0))", id="listen by UDP"),
    pytest.param("socket.socket(socket.AF_INET6).close()", id="make a socket of IPv6"),
    pytest.param("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0).close()", id="ask for routes"),
    pytest.param("assert socket.if_nameindex()", id="ask for interfaces"),
    pytest.param("call(41, 2, 1, 0)", id="make a socket by number"),
    pytest.param("socket.socket(socket.AF_UNIX).connect('\\0' + abstract)", id="connect to an abstract socket"),
]
POWERS = [
    pytest.param("socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()", id="make a raw socket"),
    pytest.param("socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()", id="make a packet socket"),
    pytest.param("socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 9).close()", id="make a socket of the audit"),
    pytest.param(
        "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM).close()", id="make a socket to the machine's host"
    ),
    pytest.param("socket.socket(38, socket.SOCK_SEQPACKET).close()", id="make a socket of the crypto interface"),
]


@pytest.mark.parametrize("body", LOCAL)
def test_nobody_can(body: str, inmate: Inmate, free: Inmate, outside: Outside) -> None:
    code = attack(body, port=outside.port, udp=outside.udp, abstract=outside.abstract)
    compared = free.tries(code)
    assert compared == "succeeded" or not_there(compared), compared
    answer = inmate.tries(code)
    assert denied(answer), answer


@pytest.mark.parametrize("body", POWERS)
@pytest.mark.parametrize("network", ["none", "full"])
def test_nobody_can_by_any_policy(
    body: str, network: str, inmate: Inmate, online: Inmate, free: Inmate, host: Host
) -> None:
    answer = (inmate if network == "none" else online).tries(attack(body))
    assert denied(answer), answer
    if host.user == "root":  # others have not the power
        compared = free.tries(attack(body))
        assert compared == "succeeded" or not_there(compared), compared


def test_there_is_no_family_of_sockets_but_the_local_one(inmate: Inmate) -> None:
    code = """
        made = []
        for family in range(64):
            for kind in range(1, 7):
                for high in (0, 1 << 32):
                    if libc.syscall(ctypes.c_long(41), ctypes.c_long(family | high), ctypes.c_long(kind), ctypes.c_long(0)) >= 0:
                        made.append(family)
                    pair = (ctypes.c_int * 2)()
                    if libc.syscall(ctypes.c_long(53), ctypes.c_long(family | high), ctypes.c_long(kind), ctypes.c_long(0), pair) >= 0:
                        made.append(family)
        if set(made) == {1}: raise OSError('only local ones')
    """
    assert inmate.tries(attack(code)) == "OSError: only local ones"


# Not compared: nothing is to be sent beyond this machine.
BEYOND = [
    pytest.param("socket.create_connection(('169.254.169.254', 80), 1)", id="a cloud's metadata"),
    pytest.param("socket.create_connection(('192.0.2.1', 443), 1)", id="an address of nobody's"),
    pytest.param("socket.getaddrinfo('example.org', 80)", id="a name server"),
]


@pytest.mark.parametrize("body", BEYOND)
def test_nothing_beyond_this_machine_is_reached(body: str, inmate: Inmate) -> None:
    answer = inmate.tries(attack(body))
    assert denied(answer) or answer.startswith("gaierror"), answer


@pytest.fixture(scope="module")
def online(host: Host, form: str) -> Iterator[Inmate]:
    """A contained session that may use the network."""
    session = host.open({"form": form, "network": "full"})
    yield session
    session.close()


@pytest.mark.parametrize("body", [LOCAL[0], LOCAL[1], LOCAL[2], LOCAL[3], LOCAL[4]])
def test_where_the_network_is_allowed_one_can(body: str, online: Inmate, outside: Outside) -> None:
    assert online.tries(attack(body, port=outside.port, udp=outside.udp)) == "succeeded"


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM"])
def test_abstract_sockets_stay_out_of_reach_where_the_network_is_allowed(
    kind: str, online: Inmate, free: Inmate
) -> None:
    name = f"cellrun-abuse-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, getattr(socket, f"SOCK_{kind}")) as hidden:
        hidden.bind(f"\0{name}")
        if kind == "STREAM":
            hidden.listen()
        code = attack(f"socket.socket(socket.AF_UNIX, socket.SOCK_{kind}).connect('\\0{name}')")
        assert free.tries(code) == "succeeded"
        answer = online.tries(code)
        assert denied(answer), answer


def test_an_abstract_socket_of_a_siblings_is_out_of_reach(inmate: Inmate, sibling: Inmate, form: str) -> None:
    code = attack(f"socket.socket(socket.AF_UNIX).connect('\\0{(name := f'cellrun-abuse-{secrets.token_hex(8)}')}')")
    if form == "strong":  # otherwise there is none
        assert (
            sibling.tries(attack(f"global s\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0{name}')\ns.listen()"))
            == "succeeded"
        )
        assert sibling.tries(code) == "succeeded"
    answer = inmate.tries(code)
    assert denied(answer), answer


@pytest.mark.parametrize("kind", ["STREAM", "DGRAM", "SEQPACKET"])
def test_a_socket_with_a_path_that_everybody_may_connect_to_is_out_of_reach(
    kind: str, inmate: Inmate, free: Inmate, outside: Outside
) -> None:
    # Landlock has no right for it (until version 7 at least): it is not there, or there are no such sockets.
    path = f"{outside.folder}/{secrets.token_hex(4)}"
    with socket.socket(socket.AF_UNIX, getattr(socket, f"SOCK_{kind}")) as named:
        named.bind(path)
        Path(path).chmod(0o777)
        if kind != "DGRAM":
            named.listen()
        make = f"socket.socket(socket.AF_UNIX, socket.SOCK_{kind})"
        pair = f"socket.socketpair(socket.AF_UNIX, socket.SOCK_{kind})[0]"
        code = attack(f"{make}.connect({path!r})")
        compared = free.tries(code)
        if kind != "DGRAM":
            named.accept()[0].close()
        answer = inmate.tries(code)
        ways = [f"{make}.sendto(b'x', {path!r})", f"{make}.sendmsg([b'x'], [], 0, {path!r})"]
        ways += [way.replace(make, pair) for way in (*ways, f"{make}.connect({path!r})")]
        others = [inmate.tries(attack(way)) for way in ways]
        named.setblocking(False)
        with pytest.raises(BlockingIOError):  # nothing has come
            named.recv(1) if kind == "DGRAM" else named.accept()
        Path(path).unlink()
    assert compared == "succeeded"
    assert denied(answer), answer
    assert all(map(denied, others)), others


def test_a_socket_that_a_sibling_has_in_its_folder_is_reached_by_its_path_where_a_uid_is_shared(
    inmate: Inmate, sibling: Inmate, form: str
) -> None:
    # Not promised in the strong form: Landlock has no right for it; the path has 64 random bits. In the portable form there is none.
    if form == "strong":
        assert (
            sibling.run("import socket; s = socket.socket(socket.AF_UNIX); s.bind('door'); s.listen()")["status"]
            == "ok"
        )
    code = f"os.chdir(work)\ntry: socket.socket(socket.AF_UNIX).connect('door')\nfinally: os.chdir({inmate.facts['work']!r})"
    answer = inmate.tries(attack(code, work=sibling.facts["work"]))
    assert answer == "succeeded" if form == "strong" and shares_uid(inmate) else denied(answer), answer
    if form == "strong":
        assert sibling.run("import os; s.close(); os.unlink('door')")["status"] == "ok"
