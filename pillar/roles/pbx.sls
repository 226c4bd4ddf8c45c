# A PBX: calls arrive from the proxies on profile `internal`.
freeswitch:
  esl_password: {secret: esl-password}
  max_sessions: 1000
  sessions_per_second: 100
  dialplan:
    public:
      - name: answer
        field: destination_number
        expression: ^.+$
        actions: [{application: answer}, {application: echo}]
defence:
  jails: [freeswitch]
