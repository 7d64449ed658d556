"""What a run stands on: devices and sharding, checkpoints, metrics, progress."""
