"""What every script needs and no model or data set does: command line, device, checkpoints, codes, figures."""
