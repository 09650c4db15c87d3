"""The program that a child runs."""

from jobqd.children.main import main

if __name__ == "__main__":
    main()
