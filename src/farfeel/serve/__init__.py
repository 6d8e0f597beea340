"""A server: REST, a WebSocket for live sound, and a web page; for recordings that nobody vouches for.

    upload -> Gate (key, size, time, places) -> unnamed temporary file -> worker process (limits) -> answer
                                                                             |  ^
                                                       windows (W, M, T) ... v  |  probabilities (W, K)
                                                                          the network

What a stranger sent is opened in a process of its own, which may use so much memory and so much time, writes no file
and ends with its answer. It runs the same `Recognizer` as the command line; only its network is here, in the server.
"""
