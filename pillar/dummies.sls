# Obvious dummies of every secret there is: what nodes of accounts without AWS are given (option
# `dummies` of aws_secrets), and what the tree is compiled with offline. All of it is public.
secrets:
  esl-password: {dummy: lab-esl-not-a-secret}
  esl-monitor-password: {dummy: lab-monitor-not-a-secret}
  records-login: {dummy: "records:not-a-secret"}
  database-password: {dummy: database-not-a-secret}
  core-api-token: {dummy: core-api-not-a-secret}
  # Made for the lab and published with it: whoever reads this has the key, so it protects nothing.
  certificate-default-chain:
    dummy: |
      -----BEGIN CERTIFICATE-----
      MIIDjjCCAnagAwIBAgIUd3s8kQDwICdlja4/NU5T5RUAGb0wDQYJKoZIhvcNAQEL
      BQAwSTErMCkGA1UECgwiR3VhcmRpYW4gbGFiLCBwdWJsaWMgYW5kIHdvcnRobGVz
      czEaMBgGA1UEAwwRdm9pY2UubGFiLmludmFsaWQwHhcNMjYxMTIzMjI0NjM1WhcN
      NDYxMTE4MjI0NjM1WjBJMSswKQYDVQQKDCJHdWFyZGlhbiBsYWIsIHB1YmxpYyBh
      bmQgd29ydGhsZXNzMRowGAYDVQQDDBF2b2ljZS5sYWIuaW52YWxpZDCCASIwDQYJ
      KoZIhvcNAQEBBQADggEPADCCAQoCggEBAIXbJVsz91cCYMOqqp1fRAzy4xvw7CHG
      39lCoL3a8h5m+16FqVsKdsLno9zNGn6t+rA0kTC1X51FQvzp1/6GV3D+DEk7kEIw
      aRcDO0Ci2QRYU/qo22EigqI5JnPX4wvGQtofDx6hEED+gR2p/GxpXonuJqKVOfjZ
      S6goUd37fEATgjezeCHZ401siRkjh3RasfSeolsTZJY19TujnDhljjK2WGRyTErX
      /FA2VX5rqFcUcjtDpxHYPZCI3JIprQSaKaAQ09pt+2MqH19wef+qs+ED1Lsob9LT
      7XTECnpmlUntJfPiVpKCxyqGVIWWpw9AzkX7hBSar86vTL3gfL2WyecCAwEAAaNu
      MGwwHQYDVR0OBBYEFHFxXa8GBFVxAvC/zGvXZnF4y8mSMB8GA1UdIwQYMBaAFHFx
      Xa8GBFVxAvC/zGvXZnF4y8mSMBwGA1UdEQQVMBOCEXZvaWNlLmxhYi5pbnZhbGlk
      MAwGA1UdEwEB/wQCMAAwDQYJKoZIhvcNAQELBQADggEBAFNVmLqBA0gbtT+CpDzl
      +0EhBQxKz12emHogAWh6cDI7KY0sF0i9buKVrjJjWoMRIJ2Yl2O+yyKWFR/RzleS
      vVuTne3eYE7DlphQJMLnf9EYiJWclZgj0SU50mmisQHEu8KoFIYvo8VKMt7ns5+k
      X+PHITFx4DAsbZffnxcA9cq8If5W71AAbVTmxNd/vpNTJRGdt8XmoYrdGoiZWrK3
      7J30MGMTQTBY0si/GNPFHEmItMi/cGRVXJdQDhitK5Ixcv7qfTt2ICZ0F2QeB4MO
      PT7gRg9vlp8ZBPs5TGoGhLeNg4IWmL3+shN5oyq+61xGGyIzkJLVL4As6yEs/kCJ
      avo=
      -----END CERTIFICATE-----
  certificate-default-key:
    dummy: |
      -----BEGIN PRIVATE KEY-----
      MIIEvAIBADANBgkqhkiG9w0BAQEFAASCBKYwggSiAgEAAoIBAQCF2yVbM/dXAmDD
      qqqdX0QM8uMb8Owhxt/ZQqC92vIeZvtehalbCnbC56PczRp+rfqwNJEwtV+dRUL8
      6df+hldw/gxJO5BCMGkXAztAotkEWFP6qNthIoKiOSZz1+MLxkLaHw8eoRBA/oEd
      qfxsaV6J7iailTn42UuoKFHd+3xAE4I3s3gh2eNNbIkZI4d0WrH0nqJbE2SWNfU7
      o5w4ZY4ytlhkckxK1/xQNlV+a6hXFHI7Q6cR2D2QiNySKa0EmimgENPabftjKh9f
      cHn/qrPhA9S7KG/S0+10xAp6ZpVJ7SXz4laSgscqhlSFlqcPQM5F+4QUmq/Or0y9
      4Hy9lsnnAgMBAAECggEAC9tZOCnAQERrqEL9d5DKvFx/e/TsiO/O2ekQlM17vCNI
      vOfmFBrQx+Iw6tjk/repu+LMKATI6J6lmM819mViaK94P++dj0XIHH7vlRtXuEGc
      UfKT8pfvlMl7+6++r62EmnTWqAXoV9/mnADeS6DoL07MvILiobjNyzvXFJ/qmUCz
      ik9TqfIqlixjdwNOaE0W53zCaomuoyiuoYC7kyxKS2akZJiD2CyKdLFVnPAF47ZP
      6svq3KEgSfcV6/VTzjS4gjnD2uU0XfXnLhhPSmoN3F2h8coBMhLijPXSCw2f+oeF
      lo6zHnahdEq5ZKw3MF7WFUEYoHV5ROq+GGVXRUlZUQKBgQC65CwLJQg1RG78NN/U
      G10FgwT/teDJR5M6zNlirm9aIrVy2nJ2/cYLwPcDGfeuvCjfZ0uJX5KYWe5Cl54P
      wCXBTcSqmRPorAXWifR2kxt2nWDutUpHXLEzh4TcxlKqKQZbOnXk/U4BFXUyfhLZ
      cvPgCaK6HtH0HfJguuyGPkbMiwKBgQC3WnVUM3ko4NXlOH5gg0tteyhpnOulBk8b
      /OctJIGPZSSFA8tatmCwdOdFNCwp++R7Mf6Ivj/szHFLixkFlunEEzB/w80UN14y
      d6FZA3m5jNyr37LPXJKaUudX27XfcchJy3S7FnFwa4/9zpwiSfV46ZD1NrpQ7/l8
      cf/9b+vXlQKBgGMiIwaqVwdCTIi1V0EAXsBMtjsZc6nwsHURMgI5OtGZ9Zt9qhfa
      FtInQh9AB/SE1D1kYln0+yKbGVnzaKE8MAqwQLCpUDkr/lDFjonTEE9DvaYBPexK
      i6gkq2IcRL8D0d5UTTLw9g53HlpxK3hylE/zbIDDVmTh+a47mLjAkfdvAoGAAtnS
      NzPxr1QHn1/If0GrW5FtqG67Lz6w3jOJeKc3qH4fGj5b3BY33KaErgvIoAJ9o/i8
      B25F2i23mUAZbH/TNKxDtcjamHTf7xLzHEo0i1EIYVfCFP1QfjvJwxD0e/vt7E/Q
      idQogWH6xCyBOvtBaNbg3R8zuGxyyZ+QJmWmGh0CgYBHYMmfnRdiqPePWphJNFo/
      AD4XSoWp4j5fE0TNFLcMfElLgrrdI9kSl9HfBD9bnDvGhC0uPH/Uf+pWQMY4N9kl
      P4kDVBN5hFM37xY7wWIetiXxUIlUwMofCBeQuBQy2oocBHsc/84jhoxUh9aT9PzW
      W7KVsw/Hg8AQTifMyNxhBA==
      -----END PRIVATE KEY-----
