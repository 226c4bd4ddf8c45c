# A PBX: calls arrive from the proxies on profile `internal`, and leave by the proxy they came from,
# which knows where users are and which countries may be called.
freeswitch:
  esl_password: {secret: esl-password}
  esl_users:
    monitor: {password: {secret: esl-monitor-password}, commands: [status, show, sofia]}
  max_sessions: 1000
  sessions_per_second: 100
  modules:
    - mod_logfile
    - mod_console
    - mod_event_socket
    - mod_json_cdr
    - mod_sofia
    - mod_loopback
    - mod_commands
    - mod_conference
    - mod_dptools
    - mod_expr
    - mod_hash
    - mod_dialplan_xml
    - mod_tone_stream
  json_cdr: {credentials: {secret: records-login}}
  dialplan:
    public:
      - {name: echo test, expression: "^9196$", actions: [{application: answer}, {application: echo}]}
      - name: conference
        conditions:
          - {field: "${feature_conference}", expression: "^true$"}
          - field: destination_number
            expression: ^(3[0-9]{3})$
            actions: [{application: answer}, {application: conference, data: $1@default}]
      - name: echo
        conditions:
          - field: ${feature_echo}
            expression: ^true$
            actions: [{application: answer}, {application: echo}]
      - name: onwards
        expression: ^(\+?[0-9a-zA-Z._-]+)$
        actions:
          - {application: set, data: hangup_after_bridge=true}
          - {application: limit, data: "hash calls ${sip_from_user} 20 !USER_BUSY"}
          - {application: bridge, data: "sofia/internal/$1@${sip_network_ip}"}
defence:
  jails: [freeswitch]
