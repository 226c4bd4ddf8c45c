# PHP workers that take calls from FreeSWITCH by outbound event socket.
include:
  - fsx.installed
  - fsx.configured
  - fsx.running
