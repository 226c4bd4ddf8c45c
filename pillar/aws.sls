# What all nodes in AWS share, whatever their account; the lab has none of it.
base:
  time_servers: [169.254.169.123]     # Amazon Time Sync

# Where services are. Private names; {account} and {region} are the node's own.
services:
  core-api: https://core-api.{region}.{account}.voice.internal
  service-gateway: https://service-gateway.{region}.{account}.voice.internal
  conversation-ai: wss://cai.{region}.{account}.voice.internal/stream
  omnichannel: https://omnichannel.{region}.{account}.voice.internal

# Which output of a stack feeds which pillar key: {pillar key: stack:output}. An output that is not
# published yet leaves the key to the layers.
from_stacks:
  services:core-api: rt-core-api:url
  services:omnichannel: omnichannel:url
  services:conversation-ai: cai:stream_url
  freeswitch:rtp:start_port: network-info:rtp_start_port
  freeswitch:rtp:end_port: network-info:rtp_end_port

freeswitch:
  repository:
    uri: https://freeswitch.signalwire.com/repo/deb/debian-release/
    suite: bookworm
    components: [main]
    key: /usr/share/keyrings/signalwire-freeswitch-repo.gpg
    auth: {secret: repository-login}
  rtp: {start_port: 16384, end_port: 32767}
  codecs: [PCMU, PCMA, G722]
  json_cdr:
    urls: ["https://records.voice.internal/v1/calls"]
  unit: {realtime: true, drain_seconds: 7200}

opensips:
  repository:
    uri: https://apt.opensips.org
    suite: bookworm
    components: [3.4-releases]
    key: /usr/share/keyrings/opensips-org.gpg
  sockets:
    - {proto: udp, port: 5060, advertised: public}
    - {proto: tcp, port: 5060, advertised: public}
    - {proto: tls, port: 5061, advertised: public}
    - {proto: wss, port: 443, advertised: public}
  tls:
    default: {certificate: default}
    peers: {certificate: default, side: client}
  workers: 8
  tcp_workers: 8
  memory: {shared: 1024, private: 16}
  metrics: {port: 8888, events: true}
  health: {port: 5099}
