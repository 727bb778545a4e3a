"""Workers that are dialled into another node than the one that owns the run: holders relay them to owners.

Every node is both. As an owner it dials every other node (`reach`); as a holder it answers (`service`), routes what its
workers say to the owners of the runs (`routes`), and lends them its workers' credits (`lending`).
"""
