"""A server for untrusted recordings: a REST interface, a WebSocket for live audio, and a web page.

    upload -> AccessMiddleware (key, size, time) -> unnamed temporary file -> worker process (limits) -> response
                                                                                 |  ^
                                                           windows (W, M, T) ... v  |  probabilities (W, K)
                                                                              the network

Each recording is decoded in a worker process of its own. The worker has limited memory and time, cannot write files,
and ends after its answer. It runs the same `Recognizer` as the command line, but the network runs in the server.
"""
