"""How a model is kept and run: quantisation, the KV cache, layers for the CPU, offloading."""
