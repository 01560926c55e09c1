"""`python -m nas`: the command `nas`, where the folder of installed commands is not on the path."""

from nas.cli import main

if __name__ == "__main__":
    main()
