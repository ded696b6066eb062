"""The compiled libraries: the codebook lookup, and OpenVINO's extension."""
