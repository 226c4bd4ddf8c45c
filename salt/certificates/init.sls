# Certificates from pillar, each as a whole or not at all.
include:
  - certificates.installed
  - certificates.configured
