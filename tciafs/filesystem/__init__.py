"""What the kernel sees: inodes, FUSE requests, and the mount itself."""
