run "defaults_are_what_pillar_expects" {
  command = apply

  assert {
    condition     = output.rtp_start_port == 16384 && output.rtp_end_port == 32768
    error_message = "The default media range moved: every FreeSWITCH node would be restarted."
  }

  assert {
    condition     = output.hub_address == "10.77.0.1" && output.master_address == "10.77.0.2"
    error_message = "Hub and master are the first two addresses of the network."
  }
}

run "a_new_range_is_an_update" {
  command = apply

  variables {
    rtp_end_port = 24000
  }

  assert {
    condition     = output.rtp_end_port == 24000 && output.rtp_start_port == 16384
    error_message = "Only the end of the range was to move."
  }
}

run "an_odd_first_port_is_refused" {
  command = plan

  variables {
    rtp_start_port = 16385
  }

  expect_failures = [var.rtp_start_port]
}

run "a_range_too_small_for_the_calls_is_refused" {
  command = plan

  variables {
    rtp_start_port = 16384
    rtp_end_port   = 17000
  }

  expect_failures = [terraform_data.media]
}

run "a_zone_named_twice_is_refused" {
  command = plan

  variables {
    zones = ["a", "a"]
  }

  expect_failures = [var.zones]
}

run "a_network_that_is_none_is_refused" {
  command = plan

  variables {
    cidr = "10.77.0.0"
  }

  expect_failures = [var.cidr]
}
