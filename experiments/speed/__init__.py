"""How fast are the simulator, the decoder and the kernels, on a CPU and a GPU?"""
