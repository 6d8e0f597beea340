"""Fetch published corpora and room responses: only what is missing, checked against what the host says of each file.

`sources` knows what there is and asks the host for its list of files; `web` transfers politely and resumes; `archives`
unpacks without trusting; `record` remembers what came; `fetch` does it all. Hashing and the step from a transfer to a
checked file are pooch's. Nothing here imports torch.
"""
