#!py


def run():
    wanted = {"rtp": __pillar__.get("rtp", 16384), "gateways": __pillar__.get("gateways", 0)}
    return {"daemon configured": {"fake_voice.configured": [{"config": wanted}]}}
