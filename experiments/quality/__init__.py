"""What do lossy policies cost in text quality, and what do they save?"""
