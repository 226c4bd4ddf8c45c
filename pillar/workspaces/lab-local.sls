# The lab: disposable hosts on one machine. Who exists, where, and in which role.
fleet:
  sip-01: {role: sip, zone: a, address: 10.77.0.11}
  pbx-01: {role: pbx, zone: a, address: 10.77.0.21}
  pbx-02: {role: pbx, zone: b, address: 10.77.0.22}
  fsx-01: {role: fsx, zone: a, address: 10.77.0.31}

from_stacks:
  freeswitch:rtp:start_port: lab:rtp_start_port
  freeswitch:rtp:end_port: lab:rtp_end_port

opensips:
  database: {remote: ~}     # there is none here
