# FreeSWITCH with PHP workers beside it: a call is handed to the first worker that takes it, by
# outbound event socket; if none does, the dialplan goes on and ends the call politely.
{% set ports = [9001, 9002] %}
fsx:
  ports: {{ ports }}
  credentials:
    core-api-token: {secret: core-api-token}
freeswitch:
  esl_password: {secret: esl-password}
  esl_users:
    monitor: {password: {secret: esl-monitor-password}, commands: [status, show, sofia]}
  max_sessions: 500
  dialplan:
    public:
      - name: worker
        field: destination_number
        expression: ^.+$
        actions:
          - application: socket
            data: {% for port in ports %}127.0.0.1:{{ port }}{{ "|" if not loop.last }}{% endfor %} async full
          - {application: respond, data: 503 No Worker}
defence:
  jails: [freeswitch]
