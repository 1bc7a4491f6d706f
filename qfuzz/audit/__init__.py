"""A user's own quantized model, layer by layer: what each kernel received and returned, judged by the reference."""
