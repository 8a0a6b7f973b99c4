"""Files, secrets and sockets of the machine: out of reach."""

from __future__ import annotations

from tests.abuse.conftest import SECRET, Host, Inmate, Outside


def test_the_form_is_the_one_that_is_wanted(inmate: Inmate, form: str, host: Host) -> None:
    assert inmate.facts["containment"].startswith(f"{form}: ")


def test_a_file_outside_cannot_be_read(inmate: Inmate, free: Inmate, outside: Outside) -> None:
    attack = f"assert open({outside.secret!r}).read() == {SECRET!r}"
    assert free.tries(attack) == "succeeded"
    assert inmate.tries(attack).startswith(("PermissionError", "FileNotFoundError"))
