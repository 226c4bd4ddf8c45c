"""Every SLS compiles for every node, and no state is given an argument that it does not take."""

import inspect
import re

import pytest
import salt.client
import salt.config
import salt.loader

from tests.functional.test_pillar import NODES, Compiler
from tests.support.loading import REPOSITORY

# What the state compiler itself takes, besides the function's own arguments.
COMPILERS_OWN = {
    *(
        "state",
        "fun",
        "name",
        "names",
        "order",
        "require",
        "require_in",
        "watch",
        "onchanges",
        "prereq",
    ),
    *("prereq", "reload_modules", "unless", "onlyif", "retry"),
}


@pytest.fixture(scope="module")
def lowstate(tmp_path_factory):
    """Return the low chunks of a node's highstate and the states; keywords override pillar."""
    compiled = {}

    def of(minion_id, **override):
        at = minion_id, repr(override)
        if at not in compiled:
            directory = tmp_path_factory.mktemp("minion")
            opts = salt.config.DEFAULT_MINION_OPTS.copy()
            opts.update(
                id=minion_id,
                root_dir=str(directory),
                cachedir=str(directory / "cache"),
                pki_dir=str(directory / "pki"),
                sock_dir=str(directory / "sock"),
                conf_file=str(directory / "minion"),
                extension_modules=str(directory / "extmods"),
                file_client="local",
                file_roots={"base": [str(REPOSITORY / "salt")]},
                module_dirs=[str(REPOSITORY)],
                grains={"os": "Debian", "os_family": "Debian", "oscodename": "bookworm"},
                log_level="error",
            )
            opts["pillar"] = Compiler(directory)(minion_id, **override)
            caller = salt.client.Caller(mopts=opts)
            caller.sminion.opts["pillar"] = opts["pillar"]
            found = caller.cmd("state.show_lowstate", pillar=opts["pillar"])
            states = salt.loader.states(
                caller.sminion.opts, caller.sminion.functions, caller.sminion.utils,
                caller.sminion.serializers,
            )  # fmt: skip
            compiled[at] = found, states
        return compiled[at]

    return of


@pytest.mark.parametrize("minion_id", NODES)
def test_highstate_compiles_and_gives_each_state_what_it_takes(lowstate, minion_id):
    chunks, states = lowstate(minion_id)
    assert all(isinstance(chunk, dict) for chunk in chunks), chunks
    assert len(chunks) > 15
    for chunk in chunks:
        function = f"{chunk['state']}.{chunk['fun']}"
        assert function in states, f"{chunk['__sls__']}: {function} does not exist"
        takes = inspect.signature(states[function]).parameters
        if any(one.kind is inspect.Parameter.VAR_KEYWORD for one in takes.values()):
            continue
        given = {argument for argument in chunk if not argument.startswith("__")}
        surplus = given - COMPILERS_OWN - set(takes)
        assert not surplus, f"{chunk['__sls__']}: {chunk['__id__']}: {function} takes no {surplus}"


@pytest.mark.parametrize("minion_id", NODES)
def test_order_is_installed_configured_running(lowstate, minion_id):
    chunks, _ = lowstate(minion_id)
    daemon = NODES[minion_id]
    ours = [chunk["fun"] for chunk in chunks if chunk["state"] == daemon]
    assert ours == ["installed", "configured", "running"]


def test_secrets_reach_no_state_but_those_that_keep_them(lowstate):
    """Arguments of a state end up in logs and in the job cache."""
    for minion_id in NODES:
        chunks, _ = lowstate(minion_id)
        for chunk in chunks:
            assert "PRIVATE KEY" not in str(chunk), chunk["__id__"]
            assert "not-a-secret" not in str(chunk), chunk["__id__"]


@pytest.mark.parametrize("file", sorted((REPOSITORY / "salt").rglob("*.sls")), ids=str)
def test_sls_is_short_and_its_jinja_light(file):
    text = file.read_text()
    assert len(text.splitlines()) <= 90, "data belongs into YAML, decisions into modules"
    assert "cmd.run" not in text, "where a module exists, use it"
    assert not re.search(r"\{%-?\s*macro", text)
    assert "\t" not in text


@pytest.mark.parametrize("component", ["freeswitch", "opensips"])
def test_upstream_repository_brings_its_key_and_login(lowstate, component):
    """What a production pillar names; the lab's has neither."""
    minion_id = next(name for name, daemon in NODES.items() if daemon == component)
    repository = {"key": "salt://keys/upstream.gpg", "auth": {"secret": "upstream"}}
    declared = {"upstream": {"parameter": "/x", "dummy": "machine x login y password hidden"}}
    chunks, _ = lowstate(minion_id, secrets=declared, **{component: {"repository": repository}})
    files = {chunk["name"]: chunk for chunk in chunks if chunk["state"].endswith("file")}
    assert files[f"/etc/apt/keyrings/{component}.gpg"]["source"] == "salt://keys/upstream.gpg"
    login = files[f"/etc/apt/auth.conf.d/{component}.conf"]
    assert (login["state"], login["content"]) == ("secret_file", {"secret": "upstream"})
    assert not any("hidden" in str(chunk) for chunk in chunks)
    source = files[f"/etc/apt/sources.list.d/{component}.sources"]
    assert f"Signed-By: /etc/apt/keyrings/{component}.gpg" in source["contents"]


def test_certificate_of_another_service_says_where_it_is_served(lowstate):
    web = {
        "chain": {"secret": "certificate-default-chain"},
        "key": {"secret": "certificate-default-key"},
        "self_signed": True,
        "layout": "nginx",
        "owner": "www-data",
        "service": "nginx",
        "served": ["127.0.0.1:443", {"port": 8443, "server_name": "www.example.com"}],
    }
    chunks, _ = lowstate("fsx-01.lab-local", certificates={"web": web})
    (chunk,) = (one for one in chunks if one["__id__"] == "Certificate web deployed")
    given = {key: chunk[key] for key in ("layout", "owner", "service", "served")}
    assert given == {key: web[key] for key in given}
    assert "chain" not in chunk
    assert "self_signed" not in chunk, "the module reads it where it reads the chain"
