"""Download published corpora and room impulse responses. Only missing files are fetched, and each one is checked.

`sources` lists what can be downloaded and requests the list of files from the host. `web` transfers files and resumes
broken transfers. `archives` unpacks archives safely. `record` stores what was downloaded. `fetch` combines them. pooch
computes the checksums and moves a checked file to its final name. Nothing here imports torch.
"""
