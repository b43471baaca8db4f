"""TRANSPORT: who is really calling, over what, and what the answer's headers say."""
