"""Operations: logging, what the bridge tells about itself, and what `doctor` looks at."""
