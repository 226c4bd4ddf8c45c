# FreeSWITCH with PHP workers beside it: a call is handed to a worker by outbound event socket; if
# none takes it, the dialplan goes on and ends the call politely.
freeswitch:
  max_sessions: 500
  dialplan:
    public:
      - name: worker
        field: destination_number
        expression: ^.+$
        actions:
          - {application: answer}
          - {application: socket, data: "127.0.0.1:9001 async full"}
          - {application: hangup, data: NORMAL_TEMPORARY_FAILURE}
fsx:
  workers: 2
  first_port: 9001
