"""ExecuTorch: programs made elsewhere are described; nothing is lowered to it."""
