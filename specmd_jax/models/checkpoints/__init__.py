"""Models on disk: families, tensor names, safetensors files, the bundled model."""
