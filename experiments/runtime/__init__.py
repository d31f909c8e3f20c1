"""Does the runtime take the time that the simulator says?"""
