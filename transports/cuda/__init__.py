"""What the CUDA IPC transport is made of: the driver's calls, memory of other processes, and ways to wait for them."""
