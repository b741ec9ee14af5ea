"""What tests share: real servers, real networks, real processes, and no mock of any of them."""
