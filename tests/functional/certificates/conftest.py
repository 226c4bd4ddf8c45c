"""Nodes with certificates of an authority of ours."""

import os

import pytest

from tests.functional.certificates import rotating
from tests.functional.certificates.authority import Authority
from tests.functional.certificates.web_node import WebNode
from tests.functional.freeswitch.conftest import flavours as freeswitch_flavours
from tests.functional.opensips.conftest import flavours as opensips_flavours


@pytest.fixture
def authority():
    return Authority()


@pytest.fixture(scope="module")
def shared_web(tmp_path_factory):
    """A node with a web service, for all tests of a file."""
    made = WebNode(tmp_path_factory.mktemp("web") / "node")
    try:
        yield made
    finally:
        made.close()


def _places():
    """A PBX and a proxy: the twins, and the real ones where they are on PATH."""
    return [
        pytest.param((make, *one.values), id=f"{make.__name__}-{one.id}", marks=one.marks)
        for make, found in (
            (rotating.pbx, freeswitch_flavours()),
            (rotating.proxy, opensips_flavours()),
        )
        for one in found
    ]


def _standing(place, root, authority, releases, *, takes_it_up):
    if os.geteuid() != 0:
        pytest.skip("the trial boot needs a network of its own, hence root")
    make, flavour = place
    with make(root, flavour, authority, releases[make.__name__]) as node:
        if node.takes_it_up is not takes_it_up:
            pytest.skip("the real daemon is of the other kind")
        yield node


@pytest.fixture(params=_places())
def node(request, tmp_path, authority):
    """One that takes a certificate up under calls."""
    yield from _standing(request.param, tmp_path, authority, rotating.ROTATED, takes_it_up=True)


@pytest.fixture(params=_places())
def restarted(request, tmp_path, authority):
    """One that takes a certificate at a start only."""
    yield from _standing(request.param, tmp_path, authority, rotating.RESTARTED, takes_it_up=False)
