# What every node of every account gets.
base:
  timezone: Etc/UTC

certificates:
  default:
    dns_names: ["{region}.{account}.voice.example.com"]
    chain: {secret: certificate-default-chain}
    key: {secret: certificate-default-key}
    minimum_days: 3

# Looked at by the minion itself; an event says what is about to end.
beacons:
  certificate_expiry:
    - directory: /etc/voice/tls
    - days: 21
    - interval: 3600

monitoring:
  interval: 15

# Switches of what callers can do: dialplans read them as ${feature_…}, workers as FEATURE_….
features:
  conference: true      # 3xxx are conference rooms
  echo: false           # a number that nobody serves is answered and echoed
  recording: false
  transcription: false

# Where secrets are kept, by the name that references use ({secret: esl-password}).
secrets:
  esl-password: {parameter: "/voice/{workspace}/{role}/esl-password"}
  esl-monitor-password: {parameter: "/voice/{workspace}/{role}/esl-monitor-password"}
  records-login: {parameter: "/voice/{workspace}/{role}/records-login"}
  repository-login: {parameter: "/voice/{workspace}/{role}/repository-login", required: false}
  database-password: {parameter: "/voice/{workspace}/{role}/database-password"}
  core-api-token: {parameter: omni.rm-coreapi.auth-token}
  certificate-default-chain: {parameter: rt.certificate.default.chain}
  certificate-default-key: {parameter: rt.certificate.default.key}
