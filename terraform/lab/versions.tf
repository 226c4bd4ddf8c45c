terraform {
  required_version = ">= 1.5"

  # Where the state lies is the workspace's business: guardian passes workspace_dir at init.
  backend "local" {}
}
