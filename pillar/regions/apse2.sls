# Sydney.
freeswitch:
  timezones: {Australia/Sydney: "AEST-10AEDT,M10.1.0,M4.1.0/3"}
  variables: {default_country: "61", default_timezone: Australia/Sydney}
opensips:
  trusted: [10.31.0.0/16]
