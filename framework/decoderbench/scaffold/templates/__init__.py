"""Components that run as they are: what `decoderbench new` copies, with another name."""
