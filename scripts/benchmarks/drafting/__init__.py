"""What speculation brings and costs on a few workloads, against plain decoding."""
