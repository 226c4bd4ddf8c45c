# The minion itself looks at certificates (python3-cryptography comes with it); openssl is for people.
Certificate tools installed:
  pkg.installed:
    - pkgs:
      - openssl
