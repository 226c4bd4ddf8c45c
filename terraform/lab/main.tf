# No provider and no account: built-in resources that keep, plan and output like any other.

resource "terraform_data" "network" {
  input = {
    region = var.region
    zones  = var.zones
    cidr   = var.cidr
    hub    = cidrhost(var.cidr, 1)
    master = cidrhost(var.cidr, 2)
  }
}

resource "terraform_data" "media" {
  input = {
    start = var.rtp_start_port
    end   = var.rtp_end_port
  }

  lifecycle {
    precondition {
      condition     = var.rtp_end_port - var.rtp_start_port >= 2000
      error_message = "The media range must hold at least 2000 ports: 1000 calls use two each."
    }
  }
}
