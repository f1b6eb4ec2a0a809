"""What the tests of this directory share: processes, a recording relay, and a parser of what it recorded."""
