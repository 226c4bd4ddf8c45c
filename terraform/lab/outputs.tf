# Pillar reads these under `stack:lab`.

output "region" {
  description = "Short name of the region."
  value       = terraform_data.network.output.region
}

output "zones" {
  description = "Availability zones that hosts are spread over."
  value       = terraform_data.network.output.zones
}

output "cidr" {
  description = "Network the hosts are in."
  value       = terraform_data.network.output.cidr
}

output "hub_address" {
  description = "Address of the hub: package proxy and test calls."
  value       = terraform_data.network.output.hub
}

output "master_address" {
  description = "Address of the salt-master."
  value       = terraform_data.network.output.master
}

output "rtp_start_port" {
  description = "First UDP port for media."
  value       = terraform_data.media.output.start
}

output "rtp_end_port" {
  description = "Last UDP port for media."
  value       = terraform_data.media.output.end
}
