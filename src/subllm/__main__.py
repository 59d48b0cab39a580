"""`python -m subllm`."""

from subllm.cli.app import main

if __name__ == "__main__":
    main()
