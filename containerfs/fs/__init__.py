"""What the mount looks like: names, inodes, open files, and the answers to the kernel."""
