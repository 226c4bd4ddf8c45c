"""Secrets in files of the master: what is granted, and not one step further."""

import os

import pytest

from guardian.secrets import files
from guardian.secrets.failures import DENIED, NOT_FOUND, UNFIT, SecretError


@pytest.fixture
def tree(tmp_path):
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "key").write_text("value")
    (tmp_path / "other").write_text("other")
    return tmp_path


def read(tree, name):
    def granted(path):
        if not path.startswith(f"{tree}/given/"):
            raise SecretError(DENIED, f"no grant gives {path}")

    answer = files.read(str(tree / name), granted)
    if isinstance(answer, SecretError):
        raise answer
    return answer


def test_plain_file_is_read(tree):
    assert read(tree, "given/key") == "value"


def test_link_within_what_is_granted_is_followed(tree):
    (tree / "given" / "link").symlink_to("key")
    assert read(tree, "given/link") == "value"


@pytest.mark.parametrize("target", ["../other", "/etc/passwd"])
def test_link_out_of_what_is_granted_is_refused(tree, target):
    (tree / "given" / "link").symlink_to(target)
    with pytest.raises(SecretError) as caught:
        read(tree, "given/link")
    assert caught.value.reason == DENIED


def test_directory_that_is_a_link_out_is_refused(tree):
    (tree / "elsewhere").mkdir()
    (tree / "elsewhere" / "key").write_text("other")
    (tree / "given" / "sub").symlink_to("../elsewhere")
    with pytest.raises(SecretError) as caught:
        read(tree, "given/sub/key")
    assert caught.value.reason == DENIED


@pytest.mark.parametrize(
    ("make", "reason", "told"),
    [
        (lambda file: None, NOT_FOUND, "not found on the master"),
        (lambda file: file.symlink_to("nowhere"), NOT_FOUND, "not found on the master"),
        (lambda file: file.symlink_to(file.name), UNFIT, "Too many levels"),
        (lambda file: file.mkdir(), UNFIT, "no plain file"),
        (lambda file: os.mkfifo(file), UNFIT, "no plain file"),
        (lambda file: file.write_bytes(b"\xff\xfe"), UNFIT, "is binary"),
        (lambda file: file.write_bytes(b"x" * 65537), UNFIT, "is longer than 65536"),
    ],
)
def test_file_that_is_none_is_told(tree, make, reason, told):
    make(tree / "given" / "odd")
    with pytest.raises(SecretError) as caught:
        read(tree, "given/odd")
    assert caught.value.reason == reason
    assert told in str(caught.value)
