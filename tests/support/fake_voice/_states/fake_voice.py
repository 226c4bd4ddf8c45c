"""One state that classifies, refuses and applies as the house's states do."""

import time


def configured(name, config):
    ret = {"name": name, "result": True, "changes": {}, "comment": "as wanted"}
    node = __salt__["voice.read"]()
    if node["running"] and node["config"] == config:
        return ret
    moved = [key for key, value in config.items() if node["config"].get(key) != value]
    disruption = "restart" if "rtp" in moved or not node["running"] else "reload"
    why = [f"{key}: {node['config'].get(key)} -> {config[key]}" for key in moved] or ["not running"]
    ret["changes"] = {"disruption": disruption, "why": why, "actions": [disruption]}
    if __opts__["test"]:
        ret.update(result=None, comment="would change")
        return ret
    busy = __salt__["voice.in_service"]()["state"] != "out_of_service"
    if disruption == "restart" and busy:
        ret.update(result=False, comment=f"restart needed: {why[0]}; {node['calls']} calls up")
        return ret
    __salt__["voice.note"]("apply", disruption)
    time.sleep(node.get("slow", 0))
    if node.get("breaks"):
        ret.update(result=False, comment="the new configuration does not boot")
        return ret
    node = __salt__["voice.read"]()
    if disruption == "restart":
        # A daemon that starts counts anew; `after` is what it turns out to be then.
        node["since"] = node.get("since", 0) + 1
        node.update(node.pop("after", {}))
    node.update(config=config, running=True)
    __salt__["voice.write"](node)
    ret["comment"] = "changed"
    return ret
