"""Runs on the lab's master: print each state run's return as one JSON line, from the event bus."""

import json

import salt.config
import salt.utils.event


def _failures(states: object) -> list[str]:
    """`id: comment` of each state that failed; a list return is an error of its own."""
    if not isinstance(states, dict):
        return [str(line) for line in states] if isinstance(states, list) else [str(states)]
    return [
        f"{name.split('_|-')[1]}: {' '.join(str(state.get('comment', '')).split())}"
        for name, state in states.items()
        if isinstance(state, dict) and state.get("result") is False
    ]


def main() -> None:
    opts = salt.config.master_config("/etc/salt/master")
    with salt.utils.event.get_event(
        "master", sock_dir=opts["sock_dir"], opts=opts, listen=True
    ) as bus:
        bus.connect_pub()
        print(json.dumps({"ready": True}), flush=True)
        for event in bus.iter_events(tag="salt/job", full=True):
            returned = (event or {}).get("data", {})
            if "return" not in returned or not str(returned.get("fun", "")).startswith("state."):
                continue
            print(
                json.dumps(
                    {
                        "id": returned["id"],
                        "fun": returned["fun"],
                        "retcode": returned.get("retcode"),
                        "states": len(returned["return"])
                        if isinstance(returned["return"], dict)
                        else 0,
                        "failures": _failures(returned["return"]),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
