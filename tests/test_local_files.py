"""What is found in a session's folder, and what that takes, whatever the code has put there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellrun.providers.local_files import LocalFiles


def nest(folder: Path, depth: int) -> None:
    """Folders in folders, deeper than a path could name; with a file in the innermost."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=descriptor))
    os.close(descriptor)


def remove(folder: Path) -> None:
    """Innermost first: shutil knows no folders as deep as these."""
    stack = [os.open(folder, os.O_RDONLY)]
    while "d" in os.listdir(stack[-1]):
        stack.append(os.open("d", os.O_RDONLY, dir_fd=stack[-1]))
    os.unlink("file", dir_fd=stack[-1])
    while len(stack) > 1:
        os.close(stack.pop())
        os.rmdir("d", dir_fd=stack[-1])
    os.close(stack.pop())


def test_files_in_folders_are_found_and_counted(tmp_path: Path) -> None:
    nest(tmp_path, 5)
    (tmp_path / "a").write_bytes(b"x" * 10_000)
    (tmp_path / "link").symlink_to("/etc")
    (tmp_path / "pipe.d").mkdir()
    os.mkfifo(tmp_path / "pipe.d" / "pipe")
    files = LocalFiles(tmp_path)
    assert set(files.snapshot() or {}) == {"a", "d/d/d/d/d/file"}
    assert files.disk_bytes() >= 10_000


def test_a_snapshot_of_deep_folders_is_given_up_before_it_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is made before and after each cell, and all wait for it."""
    nest(tmp_path, 800)
    opened = 0
    real = os.open

    def counting(*args: object, **named: object) -> int:
        nonlocal opened
        opened += 1
        return real(*args, **named)  # type: ignore[arg-type]

    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(os, "open", counting)
    assert LocalFiles(tmp_path).snapshot() is None
    assert opened < 100
    LocalFiles(tmp_path).disk_bytes()
    assert opened < 200
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == before
    remove(tmp_path)
