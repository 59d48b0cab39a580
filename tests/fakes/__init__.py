"""Local stand-ins for the services that subllm fetches from."""
