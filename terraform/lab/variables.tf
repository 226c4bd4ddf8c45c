variable "region" {
  description = "Short name of the region the lab stands for."
  type        = string
  default     = "local"

  validation {
    condition     = can(regex("^[a-z0-9]{2,8}$", var.region))
    error_message = "region must be 2 to 8 lower-case letters or digits, such as local or euw2."
  }
}

variable "zones" {
  description = "Availability zones that hosts are spread over."
  type        = list(string)
  default     = ["a", "b"]

  validation {
    condition     = length(var.zones) > 0 && length(var.zones) == length(distinct(var.zones))
    error_message = "zones must name at least one zone, each once."
  }
}

variable "cidr" {
  description = "Network the hosts are in; the hub is its first address, the master its second."
  type        = string
  default     = "10.77.0.0/24"

  validation {
    condition     = can(cidrhost(var.cidr, 2))
    error_message = "cidr must be an IPv4 network with room for hosts, such as 10.77.0.0/24."
  }
}

variable "rtp_start_port" {
  description = "First UDP port for media. Changing it restarts FreeSWITCH, behind a drain."
  type        = number
  default     = 16384

  validation {
    condition     = var.rtp_start_port >= 1024 && var.rtp_start_port <= 65534 && var.rtp_start_port % 2 == 0
    error_message = "rtp_start_port must be an even port between 1024 and 65534."
  }
}

variable "rtp_end_port" {
  description = "Last UDP port for media. Changing it restarts FreeSWITCH, behind a drain."
  type        = number
  default     = 32768

  validation {
    condition     = var.rtp_end_port >= 1025 && var.rtp_end_port <= 65535
    error_message = "rtp_end_port must be a port between 1025 and 65535."
  }
}
