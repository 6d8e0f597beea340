"""Networks: from waveforms at several microphones to logits over emotions."""
