"""What `rcmnet benchmark` runs, and smaller measurements that decisions rest on. Never a test."""
