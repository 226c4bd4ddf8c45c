"""Secrets and outputs for a minion as people write it: a client, and what this minion needs."""

import boto3


def ext_pillar(minion_id, pillar, names, tree, batched):
    """Return what was read; whatever AWS refuses fails the pillar."""
    host, _, workspace = minion_id.partition(".")
    role = host.partition("-")[0]
    wanted = [name.format(workspace=workspace, role=role) for name in names[role]]
    ssm = boto3.client("ssm")
    if batched:
        answer = ssm.get_parameters(Names=wanted, WithDecryption=True)
        values = {one["Name"]: one["Value"] for one in answer["Parameters"]}
    else:
        values = {
            name: ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"]
            for name in wanted
        }
    pages = ssm.get_paginator("get_parameters_by_path")
    outputs = {
        one["Name"]: one["Value"]
        for page in pages.paginate(Path=f"{tree}/{workspace}", Recursive=True)
        for one in page["Parameters"]
    }
    return {"plain": {"values": values, "outputs": outputs}}
