# Singapore.
freeswitch:
  timezones: {Asia/Singapore: "<+08>-8"}
  variables: {default_country: "65", default_timezone: Asia/Singapore}
opensips:
  trusted: [10.30.0.0/16]
