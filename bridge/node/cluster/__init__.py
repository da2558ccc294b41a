"""The other nodes: who is connected, who may, and who is dialled again."""
