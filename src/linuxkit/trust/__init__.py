"""Who has to have signed an image before a build uses it: policy, keys, signatures."""
