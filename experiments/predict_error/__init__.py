"""How far off are the closed forms, beside the simulator, the runtime and the paper?"""
