"""What trains cells: a run, a worker of it, one result reproduced, one row trained once more on all images."""
