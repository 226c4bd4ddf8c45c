"""The SLS with the lab's own pillar: what every node of it would get is clean."""

import json
import sys
from pathlib import Path

import pytest
import salt.client
import salt.config

from tests.support.secrets import master, secret_refs

REPO = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(REPO / "_utils"))
NODES = ["pbx-01.lab-local", "pbx-02.lab-local", "fsx-01.lab-local"]


@pytest.fixture
def caller(request, tmp_path):
    outputs = tmp_path / "outputs" / "lab-local"
    outputs.mkdir(parents=True)
    ports = {"rtp_start_port": 17000, "rtp_end_port": 18000}
    (outputs / "lab.json").write_text(json.dumps(ports))
    opts = salt.config.DEFAULT_MINION_OPTS.copy()
    opts.update(
        {
            "id": request.param,
            "root_dir": str(tmp_path),
            "cachedir": str(tmp_path / "cache"),
            "pki_dir": str(tmp_path / "pki"),
            "sock_dir": str(tmp_path / "sock"),
            "log_file": str(tmp_path / "log"),
            "conf_file": str(tmp_path / "minion"),
            "extension_modules": str(tmp_path / "extmods"),
            "file_client": "local",
            "file_roots": {"base": [str(REPO / "salt")]},
            "module_dirs": [str(REPO)],
            "log_level": "error",
            **master(tmp_path / "outputs"),
        }
    )
    return salt.client.Caller(mopts=opts)


@pytest.mark.parametrize("caller", NODES, indirect=True)
def test_every_node_gets_a_clean_tree(caller):
    shown = caller.cmd("state.show_sls", "freeswitch")
    assert isinstance(shown, dict), shown
    arguments = {
        key: value
        for part in shown["FreeSWITCH configured"]["freeswitch"]
        if isinstance(part, dict)
        for key, value in part.items()
    }
    context = arguments["context"]
    assert context["rtp"] == {"start_port": 17000, "end_port": 18000}
    secrets = caller.cmd("pillar.get", "secret_values", unmask=True)
    assert set(secrets) >= {"esl-password", "esl-monitor-password"}
    assert not any(str(value) in json.dumps(shown) for value in secrets.values())
    files = caller.cmd("freeswitch.render", arguments["source"], context)
    assert {"freeswitch.xml", "sip_profiles/internal.xml", "/etc/fs_cli.conf"} <= set(files)
    assert all(len(digest) == 64 for digest in files.values())
    import fsxml
    import tree_render

    source = str(REPO / "salt" / "freeswitch" / "files")
    cache = caller.opts["cachedir"] + "/templates"
    resolved = secret_refs.resolve(context, secrets)
    tree = tree_render.render(source, resolved, cache, "freeswitch")["tree"]
    assert fsxml.lint(tree) == []
    assert b'"17000"' in tree["autoload_configs/switch.conf.xml"]
