"""All options: their declaration, the parser of command lines and options files, and the checks on them."""
